"""bench_restart.py starts real processes, tells their parts apart, and says what does not work in one line."""

from __future__ import annotations

import json

import pytest


@pytest.mark.nightly
def test_the_parts_of_a_restart_add_up_and_only_training_loads_the_base(command, tiny_base, tmp_path):
    few = ("--base-model", tiny_base, "--repeats", "1", "--json", tmp_path / "found.json")
    ended = command("bench_restart", *few)
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "found.json").read_text())
    names = {kind: [name for name, _, _ in parts] for kind, parts in found.items()}
    start = ["Python starts", "import Flower", "import torch and the app", "message and settings"]
    assert names["query.hello"] == [*start, "facts and reply", "all"]
    model = ["import transformers' model code", "tokenizer", "weights"]
    assert names["train"] == [*start, "open the data", *model, "first training step", "all"]
    for *parts, (_, cpu, wall) in found.values():
        assert cpu == pytest.approx(sum(part[1] for part in parts)) and cpu > 0.5
        assert wall == pytest.approx(sum(part[2] for part in parts)) and all(part[2] >= 0 for part in parts)
    assert "first training step" in ended.out and "query.hello: median of 1 processes" in ended.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--repeats", "0"], "--repeats must be at least 1, got 0"),
        (["--base-model", "/nowhere"], "base-model must be a hub id"),
    ],
)
def test_a_mistake_is_one_line(command, arguments, words):
    ended = command("bench_restart", *arguments)
    assert ended.code == 1 and words in ended.err and len(ended.err.strip().splitlines()) == 1
