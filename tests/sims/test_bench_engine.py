"""`sims/bench_engine.py` on a tiny base: every part runs, and nobody wins by computing something else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyreft")
SCRIPT = Path(__file__).resolve().parents[2] / "sims" / "bench_engine.py"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)


def test_all_parts_on_a_tiny_base(tiny_base, tmp_path):
    file = tmp_path / "bench.json"
    few = ["--users", "3", "--rows", "2", "--repeats", "1", "--layers", "1,2", "--dtype", "float32"]
    done = bench("--base-model", str(tiny_base), *few, "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text())
    (case,) = found["train"]
    assert case["pyreft_first_step_difference"] < 1e-5 and case["pyreft_worst_difference"] < 0.03
    assert case["together_against_alone_worst"] < 1e-5
    assert set(case["engines"]) == {"pyreft", "peft", "alone", "together"}
    assert all(engine["tokens_per_second"] > 0 for engine in case["engines"].values())
    assert [c["first_layer"] for c in found["cache"]] == [1, 2]
    prefix = found["prefix"]
    assert prefix["prefix_tokens"] == 25 and prefix["worst_difference"] < 1e-5 and len(prefix["engines"]) == 2
    assert found["generate"]["equal_texts"] == found["generate"]["rows"] == 32
    profile = found["profile"]
    assert sum(profile["shares"].values()) == pytest.approx(1) and profile["shares"]["optimizer"] > 0
    assert profile["shares"]["matrix products"] > 0 and profile["largest_ratio_by_count"] > 1
    assert found["peak_flops_per_second"] is None  # a GPU's
    assert found["base_model"]["dtype"] == "float32" and found["commit"] and found["machine"]


def test_a_base_that_is_not_there_is_one_line():
    done = bench("--base-model", "/nowhere/model.gguf")
    assert done.returncode == 1 and done.stderr.startswith("error: base-model GGUF file must exist")
    done = bench("--parts", "train,speed")
    assert (
        done.returncode == 1
        and done.stderr.startswith("error: parts must be among train,")
        and "got speed" in done.stderr
    )


def test_a_random_base_is_timed_without_any_file(tmp_path):
    file = tmp_path / "bench.json"
    few = ["--parts", "generate", "--repeats", "1", "--layers", "1,2", "--dtype", "float32", "--json", str(file)]
    done = bench("--base-model", "random:tiny", *few)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(file.read_text())["base_model"]["name"] == "tiny of random weights"
    done = bench("--base-model", "random:gpt-5")
    assert done.returncode == 1 and done.stderr.startswith("error: a random base must be random:tiny or one of")
