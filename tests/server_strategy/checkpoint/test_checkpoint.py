"""A checkpoint on disk: whole or refused, and wherever a write is cut the one before it is there."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest
import torch

from fed.communication.ledger import Entry
from server_strategy.checkpoint import checkpoint
from server_strategy.checkpoint.checkpoint import FILE, PREVIOUS, Checkpoint
from server_strategy.grid.nodes import RunError


def after(number):
    """A run after so many rounds."""
    edit = {"R": torch.full((2, 3), float(number)), "b": torch.zeros(0)}
    rows = [{"round": n, "loss": 1 / 3} for n in range(1, number + 1)]
    entries = [Entry("stage1", n, "ann", "down", 1, 2, 3) for n in range(1, number + 1)]
    errors = [{"phase": "stage1", "round": n, "user": "bob", "reason": "the loss is nan"} for n in range(number)]
    memory = {"memory/0": torch.ones(2)}
    return Checkpoint(number, {"settings": {"rounds": 9}}, edit, memory, [{}], rows, entries, errors)


def test_what_is_written_is_read_and_the_one_before_stays(tmp_path):
    assert checkpoint.read(tmp_path) is None
    for number in (1, 2, 3):
        checkpoint.write(tmp_path, after(number))
    saved = checkpoint.read(tmp_path)
    assert (saved.round, saved.rows, saved.entries) == (3, after(3).rows, after(3).entries)
    assert saved.errors == after(3).errors
    assert torch.equal(saved.edit["R"], after(3).edit["R"]) and list(saved.memory) == ["memory/0"]
    (tmp_path / PREVIOUS).replace(tmp_path / FILE)
    assert checkpoint.read(tmp_path).round == 2
    assert {path.name for path in tmp_path.iterdir()} == {FILE}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("call", ["link", "replace", "fsync"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_wherever_a_write_is_cut_a_whole_checkpoint_is_there(tmp_path, monkeypatch, call, at):
    checkpoint.write(tmp_path, after(1))
    checkpoint.write(tmp_path, after(2))
    real, count = getattr(os, call), iter(range(99))

    def killed(*arguments, **options):
        if next(count) == at:
            raise Killed
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, killed)
    with suppress(Killed):
        checkpoint.write(tmp_path, after(3))
    monkeypatch.undo()
    assert checkpoint.read(tmp_path).round in (2, 3)
    checkpoint.write(tmp_path, after(4))  # what a killed process left behind is in nobody's way
    assert checkpoint.read(tmp_path).round == 4


@pytest.mark.parametrize("harm", ["cut", "a bit", "another format", "empty"])
def test_a_torn_or_altered_one_is_refused_in_one_line_that_says_the_way_back(tmp_path, harm):
    checkpoint.write(tmp_path, after(1))
    checkpoint.write(tmp_path, after(2))
    file = tmp_path / FILE
    whole = file.read_bytes()
    file.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "a bit": whole[:-1] + bytes([whole[-1] ^ 1]),
            "another format": whole.replace(b'"format":"1"', b'"format":"9"'),
            "empty": b"",
        }[harm]
    )
    with pytest.raises(RunError) as caught:
        checkpoint.read(tmp_path)
    said = str(caught.value)
    assert "\n" not in said and FILE in said and f"rename {PREVIOUS} to {FILE}" in said


def test_a_full_disk_names_the_path_and_leaves_the_one_before(tmp_path, no_room_past):
    checkpoint.write(tmp_path, after(1))
    with no_room_past(100), pytest.raises(OSError, match=FILE):
        checkpoint.write(tmp_path, after(2))
    assert checkpoint.read(tmp_path).round == 1
