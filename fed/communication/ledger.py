"""Every byte that crosses, measured: which user, which phase and round, which way; filled message by message.

What a model's configuration alone says is beside it: what each method's tensors weigh (`fed.communication.costs`), what
that makes in training, storage and serving (`traffic`), and published numbers recomputed (`published`).

Three sizes, always named: **payload**, the bytes of tensors; **record**, what the array record serializes to
(headers and keys too); **wire**, what the transport ships for the message. Users that share a message count one by
one, each as if alone on its device.
"""

from __future__ import annotations

import csv
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fed.atomic_write import writing
from fed.plain_cells import plain_row

PHASES = ("stage1", "stage2", "evaluate")
DIRECTIONS = ("down", "up")
SIZES = ("payload", "record", "wire")


@dataclass(frozen=True, slots=True)  # eight a user and round: half the memory
class Entry:
    """One message of one user. direction: down is server to client. Sizes in bytes."""

    phase: str
    round: int
    user: str
    direction: str
    payload: int
    record: int
    wire: int


class Ledger:
    """Collects entries in the order of messages."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        if entry.phase not in PHASES or entry.direction not in DIRECTIONS:
            raise ValueError(f"an entry needs a phase of {PHASES} and a direction of {DIRECTIONS}, got {entry}")
        self.entries.append(entry)

    def totals(self) -> dict[str, dict[str, dict[str, int]]]:
        """{phase: {direction: {payload, record, wire, messages}}}, zeros where nothing crossed."""
        sums = {p: {d: dict.fromkeys((*SIZES, "messages"), 0) for d in DIRECTIONS} for p in PHASES}
        for entry in self.entries:
            cell = sums[entry.phase][entry.direction]
            for size in SIZES:
                cell[size] += getattr(entry, size)
            cell["messages"] += 1
        return sums

    def write_csv(self, path: Path) -> None:
        """All entries, one a line, atomically."""
        with writing(path) as building, building.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Entry)])
            writer.writeheader()
            writer.writerows(plain_row(asdict(entry)) for entry in self.entries)
