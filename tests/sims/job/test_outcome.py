"""Medians, ratios turn by turn, and whether two ways ended alike."""

import pytest
from job import outcome

ARMS = {"base": {"loss_per_token": 5.0}, "stage1": {"loss_per_token": 4.0}, "stage1+2": None}


def turn(number, way, seconds, arms=None):
    return {
        "turn": number, "way": way, "seconds": seconds, "processor_seconds": 2 * seconds, "peak_bytes": 10**9,
        "arms": arms or ARMS,
    }  # fmt: skip


TURNS = [turn(0, "ours", 10.0), turn(0, "plain", 60.0), turn(1, "ours", 20.0), turn(1, "plain", 80.0),
         turn(2, "ours", 12.0), turn(2, "plain", 60.0)]  # fmt: skip


def test_medians_are_over_turns_and_ratios_are_within_a_turn():
    rows = outcome.summary(TURNS)
    assert rows["ours"]["seconds"] == 12 and rows["ours"]["times_seconds"] == 1
    assert rows["plain"]["seconds"] == 60 and rows["plain"]["times_seconds"] == 5
    assert rows["plain"]["processor_seconds"] == 120 and rows["plain"]["times_peak_bytes"] == 1


def test_a_turn_that_one_way_has_not_ended_has_no_ratio():
    rows = outcome.summary([*TURNS, turn(3, "ours", 1000.0)])
    assert rows["plain"]["times_seconds"] == 5


def test_the_largest_difference_of_any_arm_tells_two_ways_apart():
    other = {"base": {"loss_per_token": 5.0}, "stage1": {"loss_per_token": 4.4}}
    by_way = outcome.losses([*TURNS, turn(0, "other", 1.0, other)])
    assert by_way["plain"] == {"base": 5.0, "stage1": 4.0}
    assert outcome.apart(by_way, "ours", "plain") == 0
    assert outcome.apart(by_way, "ours", "other") == pytest.approx(0.1)
    assert outcome.apart(by_way, "ours", "none") is None
    # Whom a user is swapped with is not the same in two ways.
    others = {"a": {"base": 5.0, "swapped": 1.0}, "b": {"base": 5.0, "swapped": 2.0}}
    assert outcome.apart(others, "a", "b") == 0


def test_the_tables_have_a_row_for_each_way():
    assert [table.row_count for table in outcome.tables(TURNS)] == [2, 2]
