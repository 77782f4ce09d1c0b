"""bench_restart.py starts real processes, tells their parts apart, and says what does not work in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "sims" / "bench_restart.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True, timeout=300)


def test_the_parts_of_a_restart_add_up_and_only_training_loads_the_base(tiny_base, tmp_path):
    done = run("--base-model", str(tiny_base), "--repeats", "1", "--json", str(tmp_path / "found.json"))
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    names = {kind: [name for name, _, _ in parts] for kind, parts in found.items()}
    start = ["Python starts", "import Flower", "import torch and the app", "message and settings"]
    assert names["query.hello"] == [*start, "facts and reply", "all"]
    model = ["import transformers' model code", "tokenizer", "weights"]
    assert names["train"] == [*start, "open the data", *model, "first training step", "all"]
    for *parts, (_, cpu, wall) in found.values():
        assert cpu == pytest.approx(sum(part[1] for part in parts)) and cpu > 0.5
        assert wall == pytest.approx(sum(part[2] for part in parts)) and all(part[2] >= 0 for part in parts)
    assert "first training step" in done.stdout and "query.hello: median of 1 processes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--base-model", "/nowhere"], "base-model must be a hub id"),
    ],
)
def test_a_mistake_is_one_line(arguments, words):
    done = run(*arguments)
    assert done.returncode == 1 and words in done.stderr and len(done.stderr.strip().splitlines()) == 1
