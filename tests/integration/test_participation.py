"""Whole runs in which devices drop out: what is trained, what is counted, and what a round with too few does."""

from __future__ import annotations

import csv

import pytest

from server_strategy.grid.nodes import RunError
from tests.integration.in_process import federate

HALF = {"drop_rate": 0.5, "fraction": 1.0, "max_new_tokens": 0, "max_queries": 1, "max_items": 2, "rounds": 3}


def stage1_bytes(folder):
    """{(round, user)} that were sent the edit, and that sent one."""
    rows = [row for row in csv.DictReader((folder / "bytes.csv").open()) if row["phase"] == "stage1"]
    return tuple({(row["round"], row["user"]) for row in rows if row["direction"] == way} for way in ("down", "up"))


def test_who_drops_out_is_sent_the_edit_and_sends_nothing_however_many_supernodes_there_are(settings, tmp_path):
    reports = []
    for nodes in (1, 3):
        run = settings(**HALF, dtype="float64", wire_dtype="float64", output_dir=str(tmp_path / str(nodes)))
        report, grid, folder = federate(run, nodes)
        down, up = stage1_bytes(folder)
        assert len([number for number, _ in down if number != "4"]) == 18  # six users, three rounds; then the hand-out
        assert len(up - {entry for entry in up if entry[0] == "4"}) == sum(row["users"] for row in report["rounds"])
        assert [row["users"] + row["dropped"] for row in report["rounds"]] == [6, 6, 6]
        assert 0 < sum(row["dropped"] for row in report["rounds"]) < 18
        reports.append([(row["users"], pytest.approx(row["loss"], rel=1e-9)) for row in report["rounds"]])
    assert reports[0] == reports[1]


def test_a_round_with_too_few_replies_is_repeated_once_and_then_ends_the_run(settings, capsys):
    with pytest.raises(RunError, match=r"round 1: min-replies = 6 users' replies must be left to average, got \d of"):
        federate(settings(**HALF, min_replies=6, seed=3), 2)
    said = capsys.readouterr().out
    assert said.count("the round is repeated once") == 1
    # Of the seeds, one whose first round has three users, and whose repetition four.
    report, _, _ = federate(settings(**HALF | {"rounds": 1}, min_replies=4, seed=10), 2)
    assert capsys.readouterr().out.count("the round is repeated once") == 1
    assert report["rounds"][0]["users"] >= 4
