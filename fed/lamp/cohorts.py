"""Who federates, who personalizes, on which rows: the two cohorts of the paper's Table 5.

    paper   stage 1 federates the queries of `user_others`; `user_top_100_history` personalizes and is tested
    all     every user does both, as devices would. Stage 1 and stage 2 learn from the user's history and the
            queries are the test; where a history has no inputs (LaMP_7's bare tweets), stage 1 learns from the
            earlier half of the user's queries and the later half is the test

With held-out = n the last n items of each history are the test instead, and no stage trains on them: settings are
searched there, so that a test query decides nothing.

All of this depends on the data and the settings alone, so every node works it out the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fed.lamp.records import Corpus
from fed.lamp.tasks import Pair, Task
from fed.lamp.user import Query, User
from fed.prompts.before_rows import Prompts
from fed.settings.settings import Settings


@dataclass(frozen=True)
class Roster:
    """User ids, sorted: those that federate (stage 1), and those that personalize and are tested (stage 2)."""

    stage1: tuple[str, ...]
    stage2: tuple[str, ...]

    @property
    def everyone(self) -> tuple[str, ...]:
        return tuple(sorted({*self.stage1, *self.stage2}))


def roster(corpus: Corpus, settings: Settings) -> Roster:
    """The run's users; stage1-users and stage2-users keep the first so many by id (0 keeps all).

    Raises:
        ValueError: a cohort is empty.
    """
    others, test = corpus.cohorts["others"], corpus.cohorts["test"]
    if settings.cohorts == "all":
        others = test = tuple(sorted({*others, *test}))
    picked = Roster(_first(others, settings.stage1_users), _first(test, settings.stage2_users))
    for stage, users in (("1", picked.stage1), ("2", picked.stage2)):
        if not users:
            raise ValueError(f"{corpus.source}: stage {stage} needs at least one user, and the data has none for it")
    return picked


def _first(users: Sequence[str], count: int) -> tuple[str, ...]:
    ordered = sorted(users)
    return tuple(ordered[:count] if count else ordered)


def block(users: Sequence[str], part: int, parts: int) -> tuple[str, ...]:
    """The users of node `part` of `parts`: neighbours by id, so that most swap partners stay together."""
    return tuple(users[part * len(users) // parts : (part + 1) * len(users) // parts])


def stage1_pairs(task: Task, user: User, settings: Settings, prompts: Task | Prompts | None = None) -> list[Pair]:
    """What a user's share of the collective edit is trained on; at most max-items, the latest.

    prompts: how the user's rows are worded; None: by the task alone.
    """
    prompts = prompts or task
    if settings.cohorts == "all" and task.source_field is not None:
        return stage2_pairs(task, user, settings, prompts)
    queries = user.queries if settings.cohorts == "paper" else user.queries[: len(user.queries) // 2]
    return [prompts.query_pair(query) for query in queries[-settings.max_items :]]


def stage2_pairs(task: Task, user: User, settings: Settings, prompts: Task | Prompts | None = None) -> list[Pair]:
    """What a user's private edit is trained on: the history; at most max-items, the latest."""
    return [(prompts or task).history_pair(item) for item in history(user, settings)[-settings.max_items :]]


def history(user: User, settings: Settings) -> tuple[Mapping[str, str], ...]:
    """The user's profile without what is held out; the first item always stays."""
    return user.profile[: _kept(user, settings)]


def _kept(user: User, settings: Settings) -> int:
    return max(1, len(user.profile) - settings.held_out)


def test_pairs(
    task: Task, user: User, settings: Settings, prompts: Task | Prompts | None = None
) -> list[tuple[Query, Pair]]:
    """What a user is tested on, with its prompt and gold; at most max-queries, the first (0 keeps all).

    Raises:
        ValueError: items are held out, and the history has one alone.
    """
    prompts = prompts or task
    if settings.held_out:
        if len(user.profile) < 2:
            raise ValueError(f"held-out needs histories of two items at least, and that of {user.user_id!r} has one")
        pairs = [(_asked(task, item), prompts.history_pair(item)) for item in user.profile[_kept(user, settings) :]]
    else:
        queries = user.queries
        if settings.cohorts == "all" and task.source_field is None:
            queries = queries[len(queries) // 2 :]
        pairs = [(query, prompts.query_pair(query)) for query in queries]
    return pairs[: settings.max_queries or None]


def _asked(task: Task, item: Mapping[str, str]) -> Query:
    """A history item as a query: the instruction and its text; a bare tweet has none."""
    text = "" if task.source_field is None else item[task.source_field]
    return Query(item["id"], f"{task.instruction}{text}", item[task.target_field])
