"""The SuperNodes under supervision: a deadline over the whole run, and a second try where a node's process died."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from server_strategy.grid.nodes import RunError, answered
from server_strategy.grid.wrapped.wrapper import WrappedGrid

DIED = (ErrorCode.UNKNOWN, ErrorCode.CLIENT_APP_CRASHED)  # an actor of a simulation; a device's process


class SupervisedGrid(WrappedGrid):
    """A Grid that never waits past the run's deadline, and asks those whose process died once more.

    Promise: what is stopped and silent ends the run at its deadline; what died is asked again, once
    (tests/server_strategy/grid/wrapped/test_supervised.py).

    Args:
        grid: the SuperNodes.
        deadline: seconds from now that the whole run may take; 0: as long as it takes.
        warn: called with a line about those who are asked again.
    """

    def __init__(self, grid: Grid, *, deadline: float, warn: Callable[[str], None]) -> None:
        super().__init__(grid)
        self._seconds, self._warn = deadline, warn
        self._ends = time.monotonic() + deadline if deadline else math.inf

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As any Grid's; `timeout` seconds at most, and never past the run's deadline.

        Raises:
            RunError: the deadline has passed, and not everybody has answered.
        """
        requests = list(messages)
        replies = self._exchange(requests, timeout) if requests else []
        by_request = dict(answered(replies, requests))
        dead = {place: r for place, r in by_request.items() if r.has_error() and r.error.code in DIED}
        if not dead:
            return replies
        # Once more, by new messages, since Flower knows the old ones; their replies then answer the old ones.
        self._warn(f"{len(dead)} of {len(requests)} SuperNodes lost a process and are asked again")
        again, old_ids = [], []
        for place in dead:
            request = requests[place]
            meta = request.metadata
            again.append(Message(request.content, dst_node_id=meta.dst_node_id, message_type=meta.message_type))
            old_ids.append(meta.message_id)
        new_replies = self._exchange(again, timeout)
        for place, reply in answered(new_replies, again):
            reply.metadata.__dict__["_reply_to_message_id"] = old_ids[place]
        return [reply for place, reply in by_request.items() if place not in dead] + new_replies

    def _exchange(self, requests: list[Message], timeout: float | None) -> list[Message]:
        left = max(0.0, self._ends - time.monotonic())
        waits = min(timeout or math.inf, left)
        replies = list(self._grid.send_and_receive(requests, timeout=None if math.isinf(waits) else waits))
        if len(replies) < len(requests) and time.monotonic() >= self._ends:
            silent = len(requests) - len(replies)
            raise RunError(
                f"a run must end within run-deadline = {self._seconds:g} s, and {silent} of {len(requests)} SuperNodes "
                "have not answered; raise run-deadline, and go on with resume"
            )
        return replies
