"""Every byte that crosses, measured: which user, which phase and round, which way; filled message by message.

What a model's configuration alone says is beside it: what each method's tensors weigh (`fed.communication.costs`), what
that makes in training, storage and serving (`traffic`), and published numbers recomputed (`published`).

Three sizes, always named: **payload**, the bytes of tensors; **record**, what the array record serializes to
(headers and keys too); **wire**, what the transport ships for the message. Users that share a message count one by
one, each as if alone on its device.
"""

from __future__ import annotations

import csv
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fed.atomic_write import writing
from fed.plain_cells import plain_cell

PHASES = ("stage1", "stage2", "evaluate")
DIRECTIONS = ("down", "up")
SIZES = ("payload", "record", "wire")


class Entry(NamedTuple):
    """One message of one user. direction: down is server to client. Sizes in bytes."""

    phase: str
    round: int
    user: str
    direction: str
    payload: int
    record: int
    wire: int


class Ledger:
    """Collects entries in the order of messages: 34 bytes each, of which there are eight a user and round."""

    def __init__(self) -> None:
        self._phases, self._directions = bytearray(), bytearray()  # places in PHASES and DIRECTIONS
        self._rounds, self._users = array("i"), array("i")
        self._sizes = array("q")  # payload, record, wire of an entry, one after the other
        self._names: dict[str, int] = {}  # user -> place, in the order of their first entries

    def add(self, entry: Entry) -> None:
        """Enter a message. Raises ValueError."""
        if entry.phase not in PHASES or entry.direction not in DIRECTIONS:
            raise ValueError(f"an entry needs a phase of {PHASES} and a direction of {DIRECTIONS}, got {entry}")
        self._phases.append(PHASES.index(entry.phase))
        self._directions.append(DIRECTIONS.index(entry.direction))
        self._rounds.append(entry.round)
        self._users.append(self._names.setdefault(entry.user, len(self._names)))
        self._sizes.extend((entry.payload, entry.record, entry.wire))

    def __iter__(self) -> Iterator[Entry]:
        names, sizes = list(self._names), self._sizes
        columns = zip(self._phases, self._rounds, self._users, self._directions, strict=True)
        for place, (phase, number, user, direction) in enumerate(columns):
            of_entry = sizes[3 * place : 3 * place + 3]
            yield Entry(PHASES[phase], number, names[user], DIRECTIONS[direction], *of_entry)

    @property
    def entries(self) -> list[Entry]:
        """All entries, made anew."""
        return list(self)

    def totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """{phase: {direction: {payload, record, wire, messages}}}, zeros where nothing crossed."""
        sums = {p: {d: dict.fromkeys((*SIZES, "messages"), 0) for d in DIRECTIONS} for p in PHASES}
        for entry in self:
            cell = sums[entry.phase][entry.direction]
            for size in SIZES:
                cell[size] += getattr(entry, size)
            cell["messages"] += 1
        return sums

    def write_csv(self, path: Path) -> None:
        """All entries, one a line, atomically."""
        with writing(path) as building, building.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(Entry._fields)
            writer.writerows(map(plain_cell, entry) for entry in self)
