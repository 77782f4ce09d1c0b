"""A run in this one process: the server's and the clients' own code, without Flower's transport and without Ray.

A message goes straight from the server's Grid to the real ClientApp, one context a SuperNode, and the base is loaded
once for all of them and for the runs that follow. What is missing is the wire: no process per message, no polling, no
serialization (sizes are computed from the same objects, so the ledger is the same).

Promise: the report of a run in one process is that of the same run on Flower and Ray, bit for bit, but for its times
(tests/sims/simulation/test_in_process.py).
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from clients.app import app as client_app
from fed.settings.settings import Settings
from server_strategy.run import run as run_server
from simulation.apps import SUPERNODES

NodeConfig = Mapping[str, Any]
FIRST_NODE = 1000  # any number but a user's place in a UserGrid


class InProcessGrid(Grid):
    """SuperNodes that answer at once, in the process of the server.

    Args:
        nodes: the node config of each.
        settings: the run's.
        run_id: as Flower would draw it.
    """

    def __init__(self, nodes: Sequence[NodeConfig], settings: Settings, run_id: int) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = (
            1,
            run_id,
            1,
        )  # as Flower sets in its processes
        self._contexts = {
            FIRST_NODE + place: Context(
                run_id=run_id,
                node_id=FIRST_NODE + place,
                node_config=dict(node),
                state=RecordDict(),
                run_config=settings.as_config(),  # type: ignore[arg-type]
            )
            for place, node in enumerate(nodes)
        }

    def set_run(self, run: object) -> None: ...

    @property
    def run(self):  # type: ignore[no-untyped-def]
        raise AssertionError("the server must not need the run")

    def create_message(self, *args: object, **kwargs: object) -> Message:
        raise AssertionError("the server must build its messages itself")

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise AssertionError("the server must send and receive")

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise AssertionError("the server must send and receive")

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        replies = []
        for number, message in enumerate(messages):
            message.metadata.__dict__["_message_id"] = f"{time.monotonic_ns()}-{number}"
            replies.append(self.deliver(message))
        return reversed(replies)  # whoever answers first must not matter

    def deliver(self, message: Message) -> Message:
        """The reply of the node that the message is for; a defect of the client's is an error reply, as Flower's."""
        try:
            return client_app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as defect:
            reason = f"{type(defect).__name__}: {' '.join(str(defect).split())}"
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def simulated(count: int) -> list[NodeConfig]:
    """The node configs of so many simulated SuperNodes, as Flower sets them."""
    return [{"partition-id": place, "num-partitions": count} for place in range(count)]


def run_here(settings: Settings, *, supernodes: int = SUPERNODES) -> Path:
    """The whole run in this process; returns the path of its report.json.

    Raises:
        RunError, ValueError, OSError: as `server_strategy.run.run`.
    """
    run_id = secrets.randbits(63)
    folder = settings.run_folder(run_id)
    run_server(InProcessGrid(simulated(supernodes), settings, run_id), settings, folder)
    return folder / "report.json"
