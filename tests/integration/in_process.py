"""A Grid that hands messages straight to the real ClientApp, one context per SuperNode, and keeps every one of them.

The server's and the clients' code are the product's own; only Flower's transport is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from clients.app import app as client_app
from fed.settings.settings import Settings
from server_strategy.run import run

RUN_ID = 7


class InProcessGrid(Grid):
    """Simulated SuperNodes, or devices by their node configs; `seen` is (direction, node, message) of all that crossed.

    A node in `gone` is one whose process was killed: Flower answers for it, in the SuperLink's name.
    """

    def __init__(self, nodes: int | list[dict], settings: Settings) -> None:
        if isinstance(nodes, int):
            nodes = [{"partition-id": i, "num-partitions": nodes} for i in range(nodes)]
        self.gone: set[int] = set()
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = (
            1,
            RUN_ID,
            1,
        )  # as Flower sets in its processes
        self.seen: list[tuple[str, int, Message]] = []
        self.before_send = lambda message_type: None
        self._contexts = {
            1000 + i: Context(
                run_id=RUN_ID,
                node_id=1000 + i,
                node_config=config,
                state=RecordDict(),
                run_config=settings.as_config(),  # type: ignore[arg-type]
            )
            for i, config in enumerate(nodes)
        }

    def set_run(self, run: object) -> None: ...

    @property
    def run(self):
        raise AssertionError("the server must not need the run")

    def create_message(self, *args, **kwargs):
        raise AssertionError("the server must build its messages itself")

    push_messages = pull_messages = create_message

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        replies = []
        for number, message in enumerate(messages):
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = f"{len(self.seen)}-{number}"
            self.before_send(message.metadata.message_type)
            self.seen.append(("down", node, message))
            if node in self.gone:
                reply = Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
                reply.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
                replies.append(reply)
                continue
            reply = client_app(message, self._contexts[node])
            self.seen.append(("up", node, reply))
            replies.append(reply)
        return reversed(replies)  # whoever answers first must not matter


def federate(settings: Settings, nodes: int | list[dict], before_send=None) -> tuple[dict, InProcessGrid, Path]:
    """A whole run; returns (report, grid, folder of results)."""
    grid = InProcessGrid(nodes, settings)
    if before_send:
        grid.before_send = before_send
    folder = settings.run_folder(RUN_ID)
    return run(grid, settings, folder), grid, folder
