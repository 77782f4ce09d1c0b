"""A Grid that hands everything on to another, for those that change how messages are exchanged and nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid


class WrappedGrid(Grid):
    """All but `send_and_receive`, which a subclass has of its own.

    Args:
        grid: the one that is wrapped.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid: Any = grid

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self):  # type: ignore[no-untyped-def]
        return self._grid.run

    def get_node_ids(self) -> Iterable[int]:
        return list(self._grid.get_node_ids())

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        message: Message = self._grid.create_message(*args, **kwargs)
        return message

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        return list(self._grid.push_messages(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return list(self._grid.pull_messages(message_ids))
