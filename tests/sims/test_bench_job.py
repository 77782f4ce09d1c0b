"""`python sims/bench_job.py`: the product and the plain way do the same job; what a command takes is counted."""

import json
import sys

import pytest
from job.watched import python, watched

SMALL = (
    'base-model="{base}" layers="1,2" stage2-layers="same" max-items=4 max-queries=2 max-new-tokens=4 rounds=1 '
    'dtype="float32"'
)


@pytest.mark.nightly
def test_the_plain_ways_end_with_the_losses_of_the_product(command, tiny_base, tmp_path):
    pytest.importorskip("pyreft")
    pytest.importorskip("peft")
    file = tmp_path / "job.json"
    settings = SMALL.format(base=tiny_base)
    ended = command("bench_job", "--users", 2, "--turns", 1, "--json", file, "-c", settings)
    assert ended.code == 0 and "within 3%" in ended.out and "NOT within" not in ended.out
    written = json.loads(file.read_text())
    assert [turn["way"] for turn in written["turns"]] == ["ours", "pyreft", "peft"]
    losses = written["losses"]
    assert losses["pyreft"]["stage1+2"] == pytest.approx(losses["ours"]["stage1+2"], rel=0.03)
    for way in losses.values():
        assert way["stage1+2"] < way["stage1"] < way["base"]
    assert all(turn["seconds"] > 1 and turn["peak_bytes"] > 10**8 for turn in written["turns"])


@pytest.mark.parametrize("options", [("--ways", "ours,theirs"), ("--users", "0"), ("--turns", "0"), ("-c", "rounds=0")])
def test_a_mistake_is_one_line(command, options):
    ended = command("bench_job", *options)
    assert ended.code == 1 and len(ended.err.strip().splitlines()) == 1 and "error: " in ended.err


def test_a_command_is_charged_for_its_descendants_and_what_fails_is_told():
    busy = "import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass"
    parent = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {busy!r}])\nprint('done')"
    taken = watched(python("-c", parent))
    assert taken.said.strip() == "done" and taken.seconds >= 2 and taken.processor_seconds > 0
    with pytest.raises(ValueError, match="failed: the reason"):
        watched([sys.executable, "-c", "print('the reason'); raise SystemExit(3)"])
