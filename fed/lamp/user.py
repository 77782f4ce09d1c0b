"""A user as data: the history that stage 2 trains on, and the queries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Query:
    """A question of a user's, in the task's words, and the answer that the user gave."""

    id: str
    input: str
    gold: str


@dataclass(frozen=True)
class User:
    """One user: the history (for stage 2) and the queries (stage 1 of "others", evaluation of "test").

    A history is in the order of its items' dates, the oldest first; where one has none, in the file's.
    """

    user_id: str
    profile: tuple[Mapping[str, str], ...]
    queries: tuple[Query, ...]
