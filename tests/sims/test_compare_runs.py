"""`sims/compare_runs.py`: says what differs most, and fails by the loss alone."""

from __future__ import annotations

import json

import pytest

ARMS = {"base": {"loss_per_token": 4.0, "rougeL": 0.1}, "swapped": None}
REPORT = {"arms": ARMS, "users": [{"user_id": name, "arms": ARMS} for name in ("alice", "bob")]}


def change(path: tuple, value) -> dict:
    report = json.loads(json.dumps(REPORT))
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return report


@pytest.mark.parametrize(
    ("other", "within", "code", "words"),
    [
        (REPORT, "0", 0, "equal, bit for bit"),
        (change(("users", 1, "arms", "base", "loss_per_token"), 4.01), "0", 1, "not equal bit for bit"),
        (change(("users", 1, "arms", "base", "loss_per_token"), 4.01), "0.005", 0, "bob"),
        (change(("users", 1, "arms", "base", "loss_per_token"), 4.1), "0.005", 1, "2.4e-02"),
        (change(("arms", "base", "rougeL"), 0.3), "0", 0, "all users"),
        (change(("users", 0, "user_id"), "carol"), "0", 2, "error: the reports must hold the same users"),
        (change(("arms", "base", "loss_per_token"), 4.002), "0.01", 0, "5.0e-04"),
        (change(("arms", "swapped"), {"loss_per_token": 4.0}), "0", 0, "not compared: swapped"),
        (
            change(("users", 0, "arms", "base", "loss_per_token_without_eos"), 4.0),
            "0",
            0,
            "not compared: loss_per_token_w",
        ),
        ({"arms": {}}, "0", 2, "error:"),
    ],
)
def test_two_reports_are_compared(command, tmp_path, other, within, code, words):
    for name, report in (("a", REPORT), ("b", other)):
        (tmp_path / name).write_text(json.dumps(report))
    ended = command("compare_runs", tmp_path / "a", tmp_path / "b", "--within", within)
    assert ended.code == code, ended.out + ended.err
    assert words in ended.out + ended.err


def test_the_difference_over_all_users_stands_beside_the_largest(command, monkeypatch, tmp_path):
    other = change(("users", 1, "arms", "base", "loss_per_token"), 4.1)
    other["arms"]["base"]["loss_per_token"] = 4.002
    for name, report in (("a", REPORT), ("b", other)):
        (tmp_path / name).write_text(json.dumps(report))
    monkeypatch.setenv("COLUMNS", "160")
    ended = command("compare_runs", tmp_path / "a", tmp_path / "b")
    (line,) = [line for line in ended.out.splitlines() if "loss_per_token" in line]
    assert "2.4e-02" in line and "5.0e-04" in line
