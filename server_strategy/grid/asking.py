"""One content to all users, of whose replies is kept what is read of them: a hundred thousand replies are gigabytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flwr.app import Message, RecordDict

from server_strategy.grid.packing import waves
from server_strategy.grid.user_grid import UserGrid

T = TypeVar("T")


@dataclass(frozen=True)
class Answers(Generic[T]):
    """What users answered, sorted by user; who did not answer is in neither.

    Attributes:
        values: user -> what was read of a valid reply.
        errors: user -> why the reply is not valid.
    """

    values: dict[str, T]
    errors: dict[str, str]


def ask(
    grid: UserGrid, users: Sequence[str], content: RecordDict, message_type: str, read: Callable[[Message], T]
) -> Answers[T]:
    """Send and receive, wave by wave (`packing.waves`); each wave's replies are let go before the next is sent.

    Args:
        grid: the users as nodes.
        users: whom to ask.
        content: for each of them.
        message_type: what is asked.
        read: takes what is needed of a valid reply.
    """
    values: dict[str, T] = {}
    errors: dict[str, str] = {}
    for wave in waves(sorted(users), grid.node_of):
        for user, reply in grid.send(wave, content, message_type).items():
            if reply.has_error():
                errors[user] = reply.error.reason or "no reason was given"
            else:
                values[user] = read(reply)
    return Answers(dict(sorted(values.items())), dict(sorted(errors.items())))
