"""`sims/bench_engine.py` on a tiny base: every part runs, and nobody wins by computing something else."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pyreft")


def test_all_parts_on_a_tiny_base(command, tiny_base, tmp_path):
    file = tmp_path / "bench.json"
    few = ("--users", "3", "--rows", "2", "--repeats", "1", "--layers", "0,1,2", "--dtype", "float32")
    ended = command("bench_engine", "--base-model", tiny_base, *few, "--json", file)
    assert ended.code == 0, ended.out + ended.err
    found = json.loads(file.read_text())
    (case,) = found["train"]
    assert case["pyreft_first_step_difference"] < 1e-5 and case["pyreft_worst_difference"] < 0.03
    assert case["together_against_alone_worst"] < 1e-5
    assert set(case["engines"]) == {"pyreft", "peft", "alone", "together"}
    assert all(engine["tokens_per_second"] > 0 for engine in case["engines"].values())
    assert [c["first_layer"] for c in found["cache"]] == [1, 2]
    later = found["later"]  # of four blocks two lie above block 1, forward and backward, and three above block 0
    assert later["private_layers"] == [1, 2] and later["worst_difference"] < 1e-5
    assert later["block_passes_a_row"] == {"same": 6, "later": 4, "nothing kept": 6}
    prefix = found["prefix"]
    assert prefix["prefix_tokens"] == 25 and prefix["worst_difference"] < 1e-5 and len(prefix["engines"]) == 2
    assert found["generate"]["equal_texts"] == found["generate"]["rows"] == 32
    profile = found["profile"]
    assert sum(profile["shares"].values()) == pytest.approx(1) and profile["shares"]["optimizer"] > 0
    assert profile["shares"]["matrix products"] > 0 and profile["largest_ratio_by_count"] > 1
    assert found["peak_flops_per_second"] is None  # a GPU's
    assert found["base_model"]["dtype"] == "float32" and found["commit"] and found["machine"]


def test_a_base_that_is_not_there_is_one_line(command):
    ended = command("bench_engine", "--base-model", "/nowhere/model.gguf")
    assert ended.code == 1 and ended.err.startswith("error: base-model GGUF file must exist")
    ended = command("bench_engine", "--parts", "train,speed")
    assert ended.code == 1 and ended.err.startswith("error: parts must be among train,") and "got speed" in ended.err


def test_a_random_base_is_timed_without_any_file(command, tmp_path):
    file = tmp_path / "bench.json"
    few = ("--users", "1", "--rows", "1", "--repeats", "1", "--layers", "1,2", "--dtype", "float32", "--json", file)
    ended = command("bench_engine", "--base-model", "random:tiny", "--parts", "train", *few)
    assert ended.code == 0, ended.out + ended.err
    assert json.loads(file.read_text())["base_model"]["name"] == "tiny of random weights"
    ended = command("bench_engine", "--base-model", "random:gpt-5")
    assert ended.code == 1 and ended.err.startswith("error: a random base must be random:tiny or one of")
