"""Which cells there are, which of them the file has already, and what a cell's settings are.

A cell is one average at one drift (local epochs) and one seed; with attackers, against one attack by one share of the
users. The file is written anew after every cell, so a command that was stopped goes on where it stood.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from averages.attacks import ATTACKS
from fed.averages.average import AVERAGES
from fed.averages.robust import NEEDS, check_enough
from fed.settings.settings import Settings

TRUSTING = tuple(name for name in AVERAGES if name not in NEEDS)
SHARES = (0.1, 0.2, 0.3)


@dataclass(frozen=True)
class Cell:
    """One run of rounds.

    Attributes:
        average: its name.
        epochs: local epochs, the drift.
        seed: of the run.
        attack: "" where all users are honest.
        share: of a round's users who lie.
    """

    average: str
    epochs: int
    seed: int
    attack: str = ""
    share: float = 0.0

    def liars(self, users: int) -> int:
        """How many of a round's so many users lie: at least one where any do."""
        return max(1, round(self.share * users)) if self.attack else 0

    def settings(self, shared: Settings, users: int, hidden_size: int) -> Settings:
        """The cell's. A robust average is told how many lie; `exact` has the rows that honest rounds can need.

        Raises:
            ValueError: the average cannot hold against so many.
        """
        liars = self.liars(users) if self.average in NEEDS else 0
        if liars:
            check_enough(self.average, users, liars)
        return replace(
            shared,
            average=self.average,
            local_epochs=self.epochs,
            seed=self.seed,
            attackers=liars,
            exact_rank=0 if self.attack else min(hidden_size, shared.rounds * users * shared.stage1_rank),
        )


def drifting(averages: list[str], epochs: list[int], seeds: list[int]) -> Iterator[Cell]:
    """Honest users: every average at every drift, seed by seed, so that a part of the file is a comparison too."""
    for seed in seeds:
        for drift in epochs:
            for average in averages:
                yield Cell(average, drift, seed)


def attacked(averages: list[str], epochs: int, seed: int) -> Iterator[Cell]:
    """Every average with honest users, and against every attack by every share of them."""
    for average in averages:
        yield Cell(average, epochs, seed)
    for attack in ATTACKS:
        for share in SHARES:
            for average in averages:
                yield Cell(average, epochs, seed, attack, share)


class Kept:
    """The cells of a file, by what they are.

    Args:
        path: the file; none yet: no cells.
        of: what all its cells have in common.
    Raises:
        ValueError: the file is of something else, or no file of this command.
    """

    def __init__(self, path: Path, of: Mapping[str, Any]) -> None:
        self._results: dict[Cell, dict[str, Any]] = {}
        if not path.exists():
            return
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            other = {key for key in {*of, *content["of"]} if of.get(key) != content["of"].get(key)}
            results = {Cell(**cell["cell"]): cell for cell in content["cells"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"--json must name a new file, or one of this command, got {str(path)!r}") from error
        if other:
            raise ValueError(
                f"{str(path)!r} has cells of other settings ({', '.join(sorted(other))} differ); give another --json"
            )
        self._results = results

    def __contains__(self, cell: Cell) -> bool:
        return cell in self._results

    def add(self, cell: Cell, result: Mapping[str, Any]) -> None:
        """`result` holds `rounds`, or `refused` with the reason."""
        self._results[cell] = {"cell": asdict(cell), **result}

    def results(self) -> list[dict[str, Any]]:
        return list(self._results.values())
