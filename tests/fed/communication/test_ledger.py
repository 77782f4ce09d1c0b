"""Every byte that crosses, added up and written down."""

import csv
import os

import pytest

from fed.communication.ledger import Entry, Ledger

ENTRIES = [
    Entry("stage1", 1, "a", "down", 100, 130, 200),
    Entry("stage1", 1, "a", "up", 101, 131, 201),
    Entry("stage1", 2, "b", "down", 1000, 1030, 2000),
    Entry("stage2", 0, "a, or\n\"é\"", "up", 0, 0, 37),
]  # fmt: skip


@pytest.fixture
def ledger():
    ledger = Ledger()
    for entry in ENTRIES:
        ledger.add(entry)
    return ledger


def test_totals_are_sums_by_phase_and_way_with_zeros_where_nothing_crossed(ledger):
    nothing = {"payload": 0, "record": 0, "wire": 0, "messages": 0}
    assert ledger.totals() == {
        "stage1": {
            "down": {"payload": 1100, "record": 1160, "wire": 2200, "messages": 2},
            "up": {"payload": 101, "record": 131, "wire": 201, "messages": 1},
        },
        "stage2": {"down": nothing, "up": {"payload": 0, "record": 0, "wire": 37, "messages": 1}},
        "evaluate": {"down": nothing, "up": nothing},
    }


def test_an_empty_ledger_is_all_zeros():
    totals = Ledger().totals()
    assert all(count == 0 for ways in totals.values() for cell in ways.values() for count in cell.values())
    assert {phase: list(ways) for phase, ways in totals.items()} == {
        "stage1": ["down", "up"], "stage2": ["down", "up"], "evaluate": ["down", "up"],
    }  # fmt: skip


def test_the_csv_has_a_line_an_entry_in_the_order_of_messages(ledger, tmp_path):
    path = tmp_path / "bytes.csv"
    path.write_text("an older file")
    ledger.write_csv(path)
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["phase", "round", "user", "direction", "payload", "record", "wire"]
    assert lines[1] == ["stage1", "1", "a", "down", "100", "130", "200"]
    assert lines[4] == ["stage2", "0", "a, or\n\"é\"", "up", "0", "0", "37"]  # fmt: skip
    assert len(lines) == 5 and [entry.name for entry in tmp_path.iterdir()] == ["bytes.csv"]


def test_a_csv_that_cannot_be_replaced_leaves_the_old_one(ledger, tmp_path, monkeypatch):
    path = tmp_path / "bytes.csv"
    path.write_text("an older file")

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        ledger.write_csv(path)
    assert path.read_text() == "an older file"


@pytest.mark.parametrize("wrong", [{"phase": "stage3"}, {"direction": "sideways"}])
def test_an_unknown_phase_or_way_is_refused_and_not_counted(wrong):
    ledger = Ledger()
    fields = {
        "phase": "stage1",
        "round": 1,
        "user": "a",
        "direction": "up",
        "payload": 1,
        "record": 1,
        "wire": 1,
    }
    with pytest.raises(ValueError, match=next(iter(wrong.values()))):
        ledger.add(Entry(**fields | wrong))
    assert ledger.entries == []
