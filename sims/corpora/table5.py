"""PerFit's table 5: what both cohorts of a task hold, counted on the very rows that a run trains and asks.

    stage 1   the queries of the users who federate
    stage 2   the history of the users who personalize
    test      the queries of these

Lengths are words by white space: of the prompt, the instruction included, and of the completion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from rich import box
from rich.table import Table

from fed.lamp.cohorts import roster, stage1_pairs, stage2_pairs, test_pairs
from fed.lamp.records import Corpus
from fed.lamp.tasks import Pair
from fed.lamp.user import User

COHORTS = "paper"


@dataclass
class Spread:
    """Mean, sample standard deviation, least and most of numbers that are seen one by one (Welford)."""

    count: int = 0
    mean: float = 0.0
    least: float = math.inf
    most: float = -math.inf
    squares: float = field(default=0.0, repr=False)

    def see(self, value: float) -> None:
        self.count += 1
        step = value - self.mean
        self.mean += step / self.count
        self.squares += step * (value - self.mean)
        self.least, self.most = min(self.least, value), max(self.most, value)

    @property
    def sd(self) -> float | None:
        return math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else None

    def as_json(self) -> dict[str, float | None]:
        return {"mean": self.mean, "sd": self.sd, "least": self.least, "most": self.most}

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + (f" ± {self.sd:.1f}" if self.sd is not None else "")


@dataclass
class Part:
    """One stage's rows of a task: how many a user, and how long they are, in words."""

    task: str
    part: str
    rows_a_user: Spread = field(default_factory=Spread)
    prompt_words: Spread = field(default_factory=Spread)
    answer_words: Spread = field(default_factory=Spread)

    @property
    def users(self) -> int:
        return self.rows_a_user.count

    @property
    def rows(self) -> int:
        return self.prompt_words.count

    def see(self, pairs: list[Pair]) -> None:
        self.rows_a_user.see(len(pairs))
        for pair in pairs:
            self.prompt_words.see(len(pair.prompt.split()))
            self.answer_words.see(len(pair.completion.split()))

    def as_json(self) -> dict[str, Any]:
        spreads = {name: getattr(self, name).as_json() for name in asdict(self) if name not in ("task", "part")}
        return {"task": self.task, "part": self.part, "users": self.users, "rows": self.rows, **spreads}


def parts(corpus: Corpus, *, tested: int = 0, seen: Callable[[], None] = lambda: None) -> list[Part]:
    """The three rows of a task.

    Args:
        corpus: its users.
        tested: how many personalize, as `stage2-users`; 0: all.
        seen: called after each user.

    Raises:
        ValueError: a cohort is empty, or a record of the data is bad.
    """
    task = corpus.task
    users = roster(corpus, cohorts=COHORTS, stage2_users=tested)

    def rows_of(user: User) -> Iterator[tuple[str, list[Pair]]]:
        if user.user_id in stage1:
            yield "stage 1", stage1_pairs(task, user, cohorts=COHORTS)
        if user.user_id in stage2:
            yield "stage 2", stage2_pairs(task, user)
            yield "test", [pair for _, pair in test_pairs(task, user, cohorts=COHORTS)]

    stage1, stage2 = set(users.stage1), set(users.stage2)
    found = {name: Part(task.name, name) for name in ("stage 1", "stage 2", "test")}
    for user_id in users.everyone:
        for name, pairs in rows_of(corpus.user(user_id)):
            found[name].see(pairs)
        seen()
    return list(found.values())


def table(counted: list[Part], source: str) -> Table:
    """For a terminal."""
    shown = Table(
        title=f"Table 5. Users, rows and lengths in words: {source}", box=box.SIMPLE_HEAD, title_justify="left"
    )
    shown.add_column("task", no_wrap=True)
    shown.add_column("rows of", no_wrap=True)
    for name in ("users", "rows", "rows a user", "least to most", "words of a prompt", "of an answer"):
        shown.add_column(name, justify="right", no_wrap=True)
    for part in counted:
        many = part.rows_a_user
        reach = f"{many.least:.0f} to {many.most:.0f}"
        words = (str(part.prompt_words), str(part.answer_words))
        task = part.task if part.part == "stage 1" else ""
        shown.add_row(task, part.part, f"{part.users:,}", f"{part.rows:,}", str(many), reach, *words)
    return shown
