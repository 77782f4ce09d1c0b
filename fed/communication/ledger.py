"""Every byte that crosses: which user, which phase and round, which way; analytic costs beside measured ones.

Measured: `Ledger`, filled message by message. Analytic, from a model's configuration alone and re-exported here:
what each method's tensors weigh (`fed.communication.costs`), what that makes in training, storage and serving
(`fed.communication.traffic`), and published numbers recomputed (`fed.communication.published`).

Three sizes, always named: **payload**, the bytes of tensors; **record**, what the array record serializes to
(headers and keys too); **wire**, what the transport ships for the message. Users that share a message count one by
one, each as if alone on its device.
"""

from __future__ import annotations

import csv
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fed.base.skeleton import PRESETS, Skeleton, SkeletonError, skeleton
from fed.communication.costs import METHODS, Cost, cost
from fed.communication.published import flowertune_budget, mean_reduction_percent, paper_table
from fed.communication.traffic import CROWDS, UPLINKS, federated_traffic, serving, storage

__all__ = [
    "CROWDS",
    "DIRECTIONS",
    "METHODS",
    "PHASES",
    "PRESETS",
    "SIZES",
    "UPLINKS",
    "Cost",
    "Entry",
    "Ledger",
    "Skeleton",
    "SkeletonError",
    "cost",
    "federated_traffic",
    "flowertune_budget",
    "mean_reduction_percent",
    "paper_table",
    "serving",
    "skeleton",
    "storage",
]

PHASES = ("stage1", "stage2", "evaluate")
DIRECTIONS = ("down", "up")
SIZES = ("payload", "record", "wire")


@dataclass(frozen=True)
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
        building = path.with_name(f".{path.name}.{os.getpid()}")
        with building.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [f.name for f in fields(Entry)])
            writer.writeheader()
            writer.writerows(asdict(entry) for entry in self.entries)
        os.replace(building, path)
