"""The rounds one after the other: draw, send, receive, average; from the first, or from where a run was broken off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord

from server_strategy.grid.user_grid import UserGrid
from server_strategy.rounds.participation import Devices
from server_strategy.rounds.strategy import CollectiveStrategy, TooFewReplies


def federate(
    strategy: CollectiveStrategy,
    grid: UserGrid,
    arrays: ArrayRecord,
    *,
    devices: Devices,
    first: int,
    last: int,
    timeout: float | None,
    warn: Callable[[str], None],
    on_finished: Callable[[int, ArrayRecord, dict[str, Any]], None],
) -> ArrayRecord:
    """Run the rounds `first` to `last`, both included; returns the collective edit as strategies see it.

    As `flwr.serverapp.strategy.Strategy.start` without its evaluations, which a run makes once, at its end. A round
    with too few replies is repeated once, with users drawn anew, and ends the run where they are too few again.

    Args:
        strategy: of the rounds.
        grid: the users that federate.
        arrays: what the first of these rounds starts from.
        devices: who of a round's users drops out, is late or is not needed.
        first, last: rounds, from 1 on.
        timeout: seconds to wait for a round's replies; None: as long as it takes.
        warn: called with a line about a round that is repeated.
        on_finished: called after each round with its number, the edit that it ended with, and what its row says of the
            simulated devices.

    Raises:
        RunError: a round cannot be averaged.
    """
    for number in range(first, last + 1):
        arrays = grid.broadcast(number, arrays)
        for attempt in (0, 1):
            # Draw, and see who of them will be there.
            strategy.attempt = attempt
            messages = list(strategy.configure_train(number, arrays, ConfigRecord(), grid))
            users = [grid.user(message.metadata.dst_node_id) for message in messages]
            attendance = devices.attend(users, number, attempt) if devices.modelled else None
            grid.absent = frozenset(attendance.absent) if attendance else frozenset()
            # Send, receive, average.
            replies = grid.send_and_receive(messages, timeout=timeout)
            try:
                averaged, _ = strategy.aggregate_train(number, replies)
                break
            except TooFewReplies as problem:
                if attempt:
                    raise
                warn(f"{problem}; the round is repeated once")
        arrays = averaged if averaged is not None else arrays
        on_finished(number, arrays, attendance.as_row() if attendance else {})
    grid.absent = frozenset()
    return arrays
