"""Who federates, who personalizes, on which rows: the two cohorts of the paper's Table 5.

    paper   stage 1 federates the queries of `user_others`; `user_top_100_history` personalizes and is tested
    all     every user does both, as devices would. Stage 1 and stage 2 learn from the user's history and the
            queries are the test; where a history has no inputs (LaMP_7's bare tweets), stage 1 learns from the
            earlier half of the user's queries and the later half is the test

With held-out = n the last n items of each history are the test instead, and no stage trains on them: settings are
searched there, so that a test query decides nothing. The last items are the latest where all have dates
(`fed.lamp.parsing`), else the last of the file.

All of this depends on the data and plain arguments alone, so every node works it out the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from fed.lamp.records import Corpus
from fed.lamp.tasks import Pair, Task
from fed.lamp.user import Query, User


class Wording(Protocol):
    """How a user's rows are put into words: by the task alone (`fed.lamp.tasks.Task`), or with more before them."""

    def query_pair(self, query: Query) -> Pair: ...

    def history_pair(self, item: Mapping[str, str]) -> Pair: ...


@dataclass(frozen=True)
class Roster:
    """User ids, sorted: those that federate (stage 1), and those that personalize and are tested (stage 2)."""

    stage1: tuple[str, ...]
    stage2: tuple[str, ...]

    @property
    def everyone(self) -> tuple[str, ...]:
        return tuple(sorted({*self.stage1, *self.stage2}))


def roster(corpus: Corpus, *, cohorts: str, stage1_users: int = 0, stage2_users: int = 0) -> Roster:
    """The run's users.

    Args:
        cohorts: "paper" or "all".
        stage1_users: how many federate, the first by id; 0 keeps all.
        stage2_users: how many personalize and are tested; 0 keeps all. The first by id; in LaMP's own layout, whose
            users nobody has sorted, those with the longest histories, as OPPU's release has them.

    Raises:
        ValueError: a cohort is empty.
    """
    others, test = corpus.cohorts["others"], corpus.cohorts["test"]
    if cohorts == "all":
        others = test = tuple(sorted({*others, *test}))
    picked = Roster(_first(others, stage1_users), _tested(corpus, test, stage2_users))
    for stage, users in (("1", picked.stage1), ("2", picked.stage2)):
        if not users:
            raise ValueError(f"{corpus.source}: stage {stage} needs at least one user, and the data has none for it")
    return picked


def _first(users: Sequence[str], count: int) -> tuple[str, ...]:
    ordered = sorted(users)
    return tuple(ordered[:count] if count else ordered)


def _tested(corpus: Corpus, users: Sequence[str], count: int) -> tuple[str, ...]:
    if not (count and corpus.lamp_layout):
        return _first(users, count)
    return tuple(sorted(sorted(users, key=lambda user: (-corpus.sizes(user)[0], user))[:count]))


def block(users: Sequence[str], part: int, parts: int) -> tuple[str, ...]:
    """The users of node `part` of `parts`: neighbours by id, so that most swap partners stay together."""
    return tuple(users[part * len(users) // parts : (part + 1) * len(users) // parts])


def stage1_pairs(
    task: Task, user: User, *, cohorts: str, max_items: int = 0, held_out: int = 0, wording: Wording | None = None
) -> list[Pair]:
    """What a user's share of the collective edit is trained on.

    Args:
        cohorts: "paper" or "all".
        max_items: how many rows at most, the latest; 0 keeps all.
        held_out: so many last items of the history are left out.
        wording: how the rows are put into words; None: by the task alone.
    """
    if cohorts == "all" and task.has_inputs(user.profile):
        return stage2_pairs(task, user, max_items=max_items, held_out=held_out, wording=wording)
    queries = user.queries if cohorts == "paper" else user.queries[: len(user.queries) // 2]
    return [(wording or task).query_pair(query) for query in queries[-max_items:]]


def stage2_pairs(
    task: Task, user: User, *, max_items: int = 0, held_out: int = 0, wording: Wording | None = None
) -> list[Pair]:
    """What a user's private edit is trained on, the history. Arguments as of `stage1_pairs`."""
    return [(wording or task).history_pair(item) for item in history(user, held_out=held_out)[-max_items:]]


def history(user: User, *, held_out: int = 0) -> tuple[Mapping[str, str], ...]:
    """The user's profile without its `held_out` last items; the first item always stays."""
    return user.profile[: _trained_items(user, held_out)]


def _trained_items(user: User, held_out: int) -> int:
    return max(1, len(user.profile) - held_out)


def test_pairs(
    task: Task, user: User, *, cohorts: str, max_queries: int = 0, held_out: int = 0, wording: Wording | None = None
) -> list[tuple[Query, Pair]]:
    """What a user is tested on, with its prompt and gold.

    Args:
        cohorts: "paper" or "all".
        max_queries: how many at most, the first; 0 keeps all.
        held_out: so many last items of the history are asked in place of the queries; 0 asks the queries.
        wording: how the rows are put into words; None: by the task alone.

    Raises:
        ValueError: items are held out, and the history has one alone.
    """
    words = wording or task
    if held_out:
        if len(user.profile) < 2:
            raise ValueError(f"held-out needs histories of two items at least, and that of {user.user_id!r} has one")
        items = user.profile[_trained_items(user, held_out) :]
        pairs = [(task.item_as_query(item), words.history_pair(item)) for item in items]
    else:
        queries = user.queries
        if cohorts == "all" and not task.has_inputs(user.profile):
            queries = queries[len(queries) // 2 :]
        pairs = [(query, words.query_pair(query)) for query in queries]
    return pairs[: max_queries or None]


def stage1_count(
    task: Task, corpus: Corpus, user_id: str, *, cohorts: str, max_items: int = 0, held_out: int = 0
) -> int:
    """How many pairs `stage1_pairs` has of a user; in the paper's cohorts by sizes alone, and no text is read.

    Promise: as many as there are pairs (tests/fed/lamp/test_cohorts.py).
    """
    if cohorts != "paper":
        user = corpus.user(user_id)
        return len(stage1_pairs(task, user, cohorts=cohorts, max_items=max_items, held_out=held_out))
    _, queries = corpus.sizes(user_id)
    return min(queries, max_items or queries)


def stage2_counts(
    task: Task,
    corpus: Corpus,
    user_id: str,
    *,
    cohorts: str,
    max_items: int = 0,
    max_queries: int = 0,
    held_out: int = 0,
) -> tuple[int, int]:
    """How many pairs `stage2_pairs` and `test_pairs` have of a user, as `stage1_count`; raises what they raise."""
    items, queries = corpus.sizes(user_id)
    if cohorts != "paper" or items < 2:
        user = corpus.user(user_id)
        tested = test_pairs(task, user, cohorts=cohorts, max_queries=max_queries, held_out=held_out)
        return len(stage2_pairs(task, user, max_items=max_items, held_out=held_out)), len(tested)
    trained = max(1, items - held_out)
    asked = items - trained if held_out else queries
    return min(trained, max_items or trained), min(asked, max_queries or asked)
