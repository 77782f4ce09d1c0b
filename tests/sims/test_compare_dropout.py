"""`python sims/compare_dropout.py` on the tiny base: its runs, its summary and figure, and a run that fails."""

from __future__ import annotations

import json

import pytest

TINY = 'base-model="{base}" layers="1,2" data="synthetic:8" rounds=1 local-epochs=1 max-items=2 max-queries=1'


@pytest.fixture
def compare(command, tiny_base, tmp_path):
    """compare("--rates", "0") -> (how it ended, the content of its file)."""
    file = tmp_path / "dropout.json"

    def run(*arguments):
        ended = command("compare_dropout", "--json", file, "-c", TINY.format(base=tiny_base), *arguments)
        return ended, json.loads(file.read_text()) if file.exists() else None

    return run


def test_every_rate_is_run_with_and_without_over_selection_and_more_are_asked_with_it(compare, script, tmp_path):
    ended, content = compare("--rates", "0.2", "--seeds", "0")
    assert ended.code == 0 and "130%" in ended.out, ended.err
    without, over = content["runs"]
    assert (without["drop_rate"], without["over_selection"], over["over_selection"]) == (0.2, 1.0, 1.3)
    assert without["down"] < over["down"] and without["simulated_seconds"] > 0 and over["loss"] > 0
    assert all((tmp_path / f"dropout.{ending}").stat().st_size > 1000 for ending in ("png", "svg"))
    again = [*content["runs"], dict(over, seed=1, loss=over["loss"] + 2)]
    rows = script("compare_dropout").summary(again)
    assert rows[1]["loss"] == pytest.approx((over["loss"] + 1, 2**0.5)) and rows[0]["loss"] == (without["loss"], 0)


def test_a_run_whose_devices_all_drop_out_fails_in_one_line_that_says_which(compare):
    ended, content = compare("--rates", "0.99", "--seeds", "0")
    assert ended.code == 1 and "the run at drop-rate 0.99, over-selection 1, seed 0 failed: " in ended.err
    assert ended.err.startswith("error: ") and ended.err.count("\n") == 1 and content is None


def test_a_command_that_was_stopped_goes_on_where_it_stood_and_mixes_no_settings(
    compare, script, tmp_path, monkeypatch
):
    module = script("compare_dropout")
    made = []

    def report_of(config):
        if len(made) == 1 and not stopped:
            stopped.append(True)
            raise KeyboardInterrupt
        made.append((config["drop-rate"], config["over-selection"]))
        row = {"users": 2, "simulated_seconds": 1.0}
        arms, sent = {"stage1": {"loss_per_token": 4.0}}, {"stage1": {"down": {"payload": 1024}}}
        return {"rounds": [row], "arms": arms, "bytes": sent}

    stopped = []
    monkeypatch.setattr(module, "report_of", report_of)
    ended, content = compare("--rates", "0,0.1", "--seeds", "0")
    assert ended.code != 0 and "the same command goes on where it stood" in ended.err and len(content["runs"]) == 1
    ended, content = compare("--rates", "0,0.1", "--seeds", "0")
    assert ended.code == 0 and made == [(0.0, 1.0), (0.0, 1.3), (0.1, 1.0), (0.1, 1.3)] and len(content["runs"]) == 4
    ended, _ = compare("--rates", "0", "--seeds", "0", "-c", "rounds=2")
    assert ended.code == 1 and "has runs of other settings" in ended.err and ended.err.count("\n") == 1
    (tmp_path / "dropout.json").write_text("{}")
    ended, _ = compare("--rates", "0", "--seeds", "0")
    assert ended.code == 1 and "--json must name a new file, or one of this command" in ended.err
