"""`python sims/compare_comm.py`: tables, files and figures of the analytic part, and how it refuses bad values."""

import csv
import importlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from fed.base.skeleton import Skeleton
from fed.settings.methods import METHODS, Entry

SIMS = Path(__file__).resolve().parents[2] / "sims"
ANALYSED = ["perfit", "oppu", "lora-p", "lora-c", "ffa-lora", "fedsa-lora"]


@pytest.fixture
def command(monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.syspath_prepend(str(SIMS))
    return importlib.import_module("compare_comm").main


@pytest.fixture
def report(command, tmp_path):
    def run(*arguments):
        file = tmp_path / "deep" / "report.json"
        assert command(["--analytic", "--json", str(file), *arguments]) == 0
        return json.loads(file.read_text(encoding="utf-8"))

    return run


def test_the_command_itself_prints_the_papers_table_and_writes_json(command, tmp_path, monkeypatch, capsys):
    file = tmp_path / "report.json"
    monkeypatch.chdir(tmp_path)
    assert command(["--analytic", "--json", str(file)]) == 0
    said = capsys.readouterr().out
    assert "92.93 %" in said and "92.3 %" in said and "40.63 GiB" in said
    assert "393,216" in said and "0.0010 %" in said and "98.44 %" in said
    assert "not built yet" not in said
    assert set(json.loads(file.read_text())) == {
        "model", "settings", "paper_table", "paper_mean_reduction_percent", "flowertune", "methods", "scenarios",
        "notes",
    }  # fmt: skip


def test_the_json_has_the_keys_that_readers_look_for(report):
    found = report()
    assert [set(row) for row in found["paper_table"]] == 12 * [
        {"table", "task", "stage", "perfit_parameters", "percent_of_base", "oppu_parameters", "reduction_percent"}
    ]
    assert found["paper_mean_reduction_percent"] == 92.93 and found["flowertune"]["total_gib"] == 40.63
    assert found["model"]["parameters"] == 6_738_415_616
    assert [row["method"] for row in found["methods"]] == ANALYSED
    assert set(found["scenarios"]) == {"federated", "storage", "serving"}
    assert len(found["scenarios"]["storage"]) == len(found["scenarios"]["serving"]) == 3 * len(ANALYSED)


def test_the_options_reach_the_numbers(report):
    found = report(
        "--model", "smollm2-135m", "--users", "40", "--rounds", "5", "--fraction", "0.25", "--wire-dtype", "bfloat16",
        "--sum-ranks", "24,12", "--uses-per-day", "3",
    )  # fmt: skip
    perfit = found["scenarios"]["federated"][0]
    message = 24 * (2 * 576 + 1) * 2
    assert perfit["message_down"] == perfit["message_up"] == message
    # Up 5 rounds of 10 changes; down 10 whole edits, then of 10 a quarter changes, and at the end 10 changes of 40.
    assert perfit["sampled"] == 10 and perfit["rounds_up"] == 50 * message
    assert perfit["rounds_down"] == message * (10 * 2 + 4 * (2.5 + 7.5 * 2))
    assert perfit["hand_out"] == message * (10 + 30 * 2)
    assert perfit["total"] == message * (50 + 90 + 70)
    assert found["scenarios"]["serving"][0]["day"] == 3 * 12 * (2 * 576 + 1) * 2
    assert found["paper_table"][0]["oppu_parameters"] == 6_291_456  # the paper's model, whatever --model is


def test_a_method_of_ones_own_is_analysed_by_its_shapes_and_one_that_is_gone_gets_one_line(script, monkeypatch):
    measured, base = script("communication.measured"), Skeleton("tiny", 0, 32, 4, ())
    monkeypatch.setitem(METHODS, "own", Entry("tests.fed.methods.test_cost.Own"))
    run = script("simulation.apps").settings("lamp7", {"method": "own"})
    report = {"app": "lamp7", "method": "own", "settings": run.as_config()}
    weight, payloads = measured.analytic(report, base)
    assert (weight.federated, weight.private) == ({"gain": (4, 3)}, {"offset": (5,)})
    assert payloads["stage1", "up"] == payloads["hand-out", "down"] == 48 and payloads["evaluate", "up"] == 0
    monkeypatch.delitem(METHODS, "own")
    with pytest.raises(ValueError, match="method must be one of .*'own'") as caught:
        measured.analytic(report, base)
    assert "\n" not in str(caught.value)


def test_perfit_is_measured_at_its_apps_rates_and_on_real_tweets_at_theirs(script, tmp_path):
    measured = script("communication.measured")

    def rates(task, data):
        source = measured.Source(task, data)
        cells = measured.cells_of(source, wire_dtype="float32", seed=0, changes={})
        of = {cell.label: cell.settings() for cell in cells}
        assert {(of[name].stage1_lr, of[name].stage2_lr) for name in ("oppu", "lora-p", "lora-c")} == {(0.01, 0.005)}
        return of["perfit"].stage1_lr, of["perfit"].stage2_lr, of["perfit"].stage2_layers

    apps = script("simulation.apps")
    for app, task in (("lamp7", "LaMP_7"), ("lamp4", "LaMP_4")):
        own = apps.settings(app, {})
        data = "synthetic" if task == "LaMP_7" else str(tmp_path)
        assert rates(task, data) == (own.stage1_lr, own.stage2_lr, own.stage2_layers)
    assert rates("LaMP_7", str(tmp_path)) == (0.003, 0.0005, "same")


def test_a_folder_serves_as_the_model(report, tiny_llama, tmp_path):
    tiny_llama().config.save_pretrained(tmp_path / "mine")
    found = report("--model", str(tmp_path / "mine"))
    assert found["model"]["name"] == "mine" and found["model"]["hidden_size"] == 32


def test_tables_and_figures_are_written_for_each_scenario(command, tmp_path):
    pytest.importorskip("matplotlib")
    assert command(["--analytic", "--out", str(tmp_path / "out")]) == 0
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {
        f"{name}.{kind}"
        for name in ("paper_table", "methods", "federated", "storage", "serving")
        for kind in ("csv", "json")
    } | {f"{name}.{kind}" for name in ("federated", "storage", "serving") for kind in ("png", "svg")}
    for name in ("federated", "storage", "serving"):
        assert (tmp_path / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        svg = ElementTree.parse(tmp_path / "out" / f"{name}.svg")
        words = " ".join("".join(element.itertext()) for element in svg.iter("{http://www.w3.org/2000/svg}text"))
        assert "llama-2-7b" in words and all(method in words for method in ANALYSED)
        with (tmp_path / "out" / f"{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        same = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert [{key: str(value) for key, value in row.items()} for row in same] == rows


def test_equal_options_give_equal_figures(command, tmp_path):
    pytest.importorskip("matplotlib")
    for folder in ("a", "b"):
        assert command(["--analytic", "--model", "smollm2-135m", "--out", str(tmp_path / folder)]) == 0
    for name in ("federated.svg", "storage.svg", "serving.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_smallest_values_still_draw(command, tmp_path):
    pytest.importorskip("matplotlib")
    smallest = ["--users", "1", "--rounds", "0", "--uses-per-day", "0", "--sum-ranks", "1,1"]
    assert command(["--analytic", "--model", "smollm2-135m", "--out", str(tmp_path), *smallest]) == 0


def test_methods_are_measured_in_whole_runs_of_the_app(command, monkeypatch, tmp_path, tiny_base, capsys, kept_worker):
    """The real app on a tiny base: payloads as analysed, and the table and figure of scenario (d)."""
    pytest.importorskip("peft")
    measured = importlib.import_module("communication.measured")
    tiny = {"base-model": str(tiny_base), "layers": "1,2", "stage1-users": 4, "stage2-users": 3, "max-items": 3}
    monkeypatch.setattr(measured, "PLAN", measured.PLAN | tiny | {"max-queries": 1, "max-new-tokens": 4})
    monkeypatch.setattr(measured, "MEASURED", ("perfit", "oppu"))
    file, out = tmp_path / "all.json", tmp_path / "out"
    line = ["--model", "smollm2-135m", "--wire-dtype", "float16", "--json", str(file), "--out", str(out)]
    assert command(line) == 0
    said, found = capsys.readouterr().out, json.loads(file.read_text())
    assert "2 cells, 0 finished before; 2 to run, 1 at a time" in said
    assert "NO" not in [word for row in said.splitlines() for word in row.split()]
    assert [run["method"] for run in found["measured"]] == ["perfit", "oppu"]
    for run in found["measured"]:
        assert all(row["equal"] for row in run["messages"])
        first = {row["phase"] + row["direction"]: row for row in run["messages"]}
        assert first["stage1up"]["measured_payload"] == 2 * run["federated_parameters"] > 0
        assert first["stage1up"]["messages"] == first["stage1down"]["messages"] == 6
        assert first["hand-outdown"]["measured_payload"] == 4 * run["federated_parameters"]  # testers had none before
        assert first["stage1down"]["measured_payload"] == 4 * run["federated_parameters"]
        assert first["hand-outdown"]["messages"] == 3 and first["hand-outup"]["total_payload"] == 0
        assert (
            first["stage2up"]["messages"] == 3
            and first["hand-outdown"]["total_payload"] == 3 * 4 * run["federated_parameters"]
        )
        assert not any(
            row["total_payload"] for row in run["messages"] if row["phase"][0] in "se" and row["phase"] != "stage1"
        )
    quality = found["scenarios"]["quality"]
    assert [(row["method"], row["stage"]) for row in quality] == [
        ("base", "no training"),
        *((method, stage) for method in ("perfit", "oppu") for stage in ("after stage 1", "after stage 2")),
    ]
    assert len({row["loss_per_token"] for row in quality}) == 5
    for name in ("quality.png", "quality.svg", "measured.csv", "measured.json", "federated.png"):
        assert (out / name).stat().st_size > 100
    assert (out / "quality.png").read_bytes()[:4] == b"\x89PNG"
    assert command(line) == 0  # goes on where it stood: nothing is left to run
    assert "2 cells, 2 finished before; 0 to run" in capsys.readouterr().out and json.loads(file.read_text()) == found


def test_the_frontier_is_counted_without_a_run(command, capsys, tmp_path):
    file, out = tmp_path / "frontier.json", tmp_path / "out"
    line = ["--frontier", "--analytic", "--model", "smollm2-135m", "--json", str(file), "--out", str(out)]
    assert command(line) == 0
    by = {(row["frozen_r"], row["rank"], row["dtype"]): row for row in json.loads(file.read_text())["counted"]}
    assert len(by) == 2 * 3 * 4
    assert by[False, 8, "float32"]["bytes"] == 4 * 24 * (2 * 576 + 1)
    assert by[True, 8, "int4"]["bytes"] == 24 * 577 // 2 + 2 * (24 + 3)  # D and b, a scale a row and a layer's b
    oppu = 4 * 30 * 8 * (2 * 576 + 2 * (576 + 192))  # q, k and v of thirty layers
    assert by[True, 8, "int4"]["times"] == pytest.approx(oppu / by[True, 8, "int4"]["bytes"])
    assert {path.name for path in out.iterdir()} == {"frontier_counted.csv", "frontier_counted.json"}
    assert "370 ×" in capsys.readouterr().out


def test_the_frontier_is_measured_in_whole_runs_and_its_bytes_are_those_counted(
    command, monkeypatch, tmp_path, tiny_base, kept_worker
):
    pytest.importorskip("peft")
    frontier = importlib.import_module("communication.frontier")
    tiny = {"base-model": str(tiny_base), "layers": "1,2", "stage1-users": 2, "stage2-users": 3, "max-items": 2}
    monkeypatch.setattr(frontier, "PLAN", frontier.PLAN | tiny | {"max-queries": 1, "rounds": 2})
    few = (frontier.OPPU, frontier.WIDE, "int8, deflated")
    monkeypatch.setattr(frontier, "LEVERS", {label: frontier.LEVERS[label] for label in few})
    out = tmp_path / "out"
    assert command(["--frontier", "--json", str(tmp_path / "all.json"), "--out", str(out)]) == 0
    report = json.loads((tmp_path / "all.json").read_text())
    rows = {row["lever"]: row for row in report["measured"]}
    assert list(rows) == list(few)
    wide = 4 * 2 * 8 * (2 * 32 + 1)
    assert rows[frontier.WIDE]["payload_up"] == wide
    assert rows["int8, deflated"]["payload_up"] <= wide / 4 + 2 * (2 * 16 + 2) + 1
    assert rows[frontier.WIDE]["up_in_all"] == 2 * 2 * wide  # two users, two rounds
    assert rows[frontier.OPPU]["payload_times"] == 1 and not rows[frontier.OPPU]["met"]
    assert (
        rows[frontier.WIDE]["wide_percent"] == 0
        and rows["int8, deflated"]["wide_low"] < rows["int8, deflated"]["wide_high"]
    )
    coded = {row["dtype"]: row for row in report["codings"]}
    assert coded["float32"]["plain"] == wide and coded["bfloat16"]["plain"] == wide / 2
    assert all(row["deflated"] <= row["plain"] + 1 for dtype, row in coded.items() if dtype != "float32")
    names = {path.name for path in out.iterdir() if path.is_file()}
    assert {"frontier.png", "frontier.svg", "frontier_measured.csv", "frontier_codings.json"} <= names


def test_what_is_worse_or_has_too_many_bytes_has_not_met_the_goal(script, tmp_path):
    frontier = script("communication.frontier")

    def run(name, payload, losses):
        file = tmp_path / f"{name}.csv"
        file.write_text(f"phase,direction,payload,record,wire\nstage1,up,{payload},{payload},{payload + 500}\n")
        arm = {"loss_per_token": 4.0}
        users = [{"user_id": str(i), "arms": {"stage1+2": {"loss_per_token": x}}} for i, x in enumerate(losses)]
        sums = {"stage1": {way: {"payload": payload} for way in ("up", "down")}}
        report = {"users": users, "arms": {"stage1": arm, "stage1+2": arm}, "bytes": sums}
        return frontier.Finished(report, file)

    runs = {
        frontier.OPPU: run("oppu", 1000, [4.0, 4.1, 4.2]),
        frontier.WIDE: run("wide", 50, [4.0, 4.0, 4.0]),
        "good": run("good", 10, [4.02, 4.01, 4.0]),
        "worse": run("worse", 5, [4.1, 4.08, 4.06]),
        "large": run("large", 11, [4.0, 3.9, 3.9]),
    }
    rows = {row["lever"]: row for row in frontier.rows_of(runs)}
    assert {name for name, row in rows.items() if row["met"]} == {"good"}
    good = rows["good"]
    assert good["payload_times"] == 100 and good["wire_times"] == pytest.approx(1500 / 510)
    assert good["wide_percent"] == pytest.approx(0.25) and good["wide_low"] < 0.25 < good["wide_high"]
    assert good["oppu_percent"] == pytest.approx(100 * (4.01 - 4.1) / 4.1)


def test_a_payload_that_is_not_the_analytic_one_fails_the_command(command, monkeypatch, tmp_path, capsys):
    """By a finished cell whose bytes.csv says that one message weighed a byte too much."""
    measured = importlib.import_module("communication.measured")
    monkeypatch.setattr(measured, "MEASURED", ("perfit",))
    (cell,) = measured.cells_of(measured.source_of(None), wire_dtype="float32", seed=0, changes={})
    scores = {"loss_per_token": 1.0, "rougeL": 0.1}
    report = {"app": "lamp7", "method": "perfit", "engine": "batched", "settings": cell.settings().as_config()}
    report |= {"base_model": {"name": "x", "dtype": "x"}, "data": {"task": "LaMP_7"}, "users": [], "git": "x"}
    report |= {"arms": {"base": scores, "stage1": scores, "stage1+2": None}, "seconds": {"total": 1.0}}
    folder = cell.folder(tmp_path / "cells")
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "report.json").write_text("{}")
    (folder / "cell.json").write_text(json.dumps({"key": cell.key, "report": report}))
    right = 3 * 8 * (2 * 576 + 1) * 4  # layers × rank × (R and W of 576 numbers, b) × float32
    for payload in (right, right + 1):
        sizes = f"{payload},{payload + 200},{payload + 300}"
        entries = f"phase,round,direction,user,payload,record,wire\nstage1,1,up,alice,{sizes}\n"
        (folder / "1" / "bytes.csv").write_text(entries)
        code = command(["--model", "smollm2-135m", "--out", str(tmp_path)])
        said = capsys.readouterr()
        assert "1 cells, 1 finished before; 0 to run" in said.out and code == (payload != right), said.err
    assert f"perfit stage1 up sent {right + 1:,} B, not {right:,} B" in said.err


def test_jobs_is_checked_before_anything_runs(command, capsys):
    assert command(["--jobs", "0"]) == 1
    assert capsys.readouterr().err == "error: --jobs must be at least 1, got 0\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--users", "0"], "users must be at least 1, got 0"),
        (["--rounds", "-1"], "rounds must not be negative, got -1"),
        (["--fraction", "1.5"], "fraction must lie in (0, 1], got 1.5"),
        (["--fraction", "nan"], "fraction must lie in (0, 1], got nan"),
        (["--sum-ranks", "64"], "sum-ranks must be two whole numbers such as 64,32, got '64'"),
        (["--sum-ranks", "64,0"], "must be at least 1, got 0"),
        (["--uses-per-day", "-1"], "uses-per-day must not be negative, got -1"),
        (["--model", "./nowhere"], "got './nowhere'"),
        (["--data", ".", "--analytic"], "data concerns the measured part"),
        (["--json", "/proc/nowhere/report.json", "--model", "smollm2-135m"], "/proc/nowhere"),
    ],
)
def test_a_bad_value_is_one_line_and_exit_code_1(command, capsys, arguments, said):
    assert command(["--analytic", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1


def test_a_wrong_data_folder_is_told_before_anything_runs(command, capsys):
    assert command(["--data", "./nowhere"]) == 1
    said = capsys.readouterr()
    assert "data must be a folder of LaMP_4 or LaMP_7" in said.err and said.out == ""


@pytest.mark.parametrize("arguments", [["--users", "many"], ["--wire-dtype", "int3"], ["--no-such-option"]])
def test_a_bad_option_is_one_line_and_exit_code_2(command, capsys, arguments):
    with pytest.raises(SystemExit, match="2"):
        command(arguments)
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_help_names_every_option_and_shows_examples(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        command(["--help"])
    text = capsys.readouterr().out
    for option in ("--analytic", "--json", "--out", "--model", "--users", "--rounds", "--fraction", "--wire-dtype"):
        assert option in text
    assert "python sims/compare_comm.py --analytic" in text
