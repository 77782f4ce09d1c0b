"""Stage 1 as central training on everybody's rows, as PerFit's paper does it: what federated training is held against.

One simulated node stands for the centre. Every simulated node reads the run's own data, so no row has to be moved, and
the centre trains by the methods' own code: all rows are those of one user, trained for rounds × local-epochs epochs
with one optimizer and one schedule. Sampling, averages and strategies have no say. Devices refuse: their rows never
leave them.

Central training federates nothing, so the bytes between the server and the centre are not in the run's ledger; those of
stage 1 are the hand-out's alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp import Grid

from fed.communication.ledger import Ledger
from fed.methods.method import Method
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.nodes import RunError
from server_strategy.grid.user_grid import UserGrid
from server_strategy.grid.work_time import WorkTime
from server_strategy.screening.replies import Screen

EVERYBODY = "everybody"  # the one user whose rows are all users'


def centre(
    grid: Grid, node: int, *, translation: Translation, timeout: float | None, work: WorkTime | None, screen: Screen
) -> UserGrid:
    """The node as a grid of one user, everybody.

    Args:
        grid: the SuperNodes.
        node: which of them stands for the centre.
        translation: between the strategies' arrays and those on the wire.
        timeout: seconds to wait for the edit; None: as long as it takes.
        work: takes the node's working time.
        screen: what its reply is held against.
    """
    hosts = {EVERYBODY: node}
    return UserGrid(grid, hosts, translation=translation, ledger=Ledger(), timeout=timeout, work=work, screen=screen)


def train_pooled(grid: UserGrid, method: Method, *, on_round: Callable[[dict[str, Any]], None]) -> ArrayRecord:
    """Train the collective edit on everybody's rows; returns it as strategies see it.

    Promise: the edit is that of plain training on the same rows, bit for bit (tests/integration/test_pooled.py).

    Args:
        grid: the centre.
        method: what it trains.
        on_round: called with the one record, as of a round: its loss is the mean over all of the training.

    Raises:
        RunError: the training failed.
    """
    started = time.monotonic()
    content = RecordDict({"arrays": grid.translation.to_record(method.initial_collective())})
    reply = grid.send([EVERYBODY], content, "train.pooled").get(EVERYBODY)
    if reply is None or reply.has_error():
        raise RunError(f"pooled training failed: {reply.error.reason if reply else 'no reply came in reply-timeout'}")
    numbers: dict[str, Any] = dict(reply.content.metric_records["metrics"])
    on_round(
        {
            "round": 1,
            "users": numbers["users"],
            "failed": 0,
            "loss": numbers["train-loss"],
            "seconds": round(time.monotonic() - started, 3),
            "orthogonality_error": method.drift(grid.translation.edit_of(reply)),
        }
    )
    return reply.content.array_records["arrays"]
