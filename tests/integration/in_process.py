"""The product's own Grid of one process, which here keeps every message, and whose nodes can be killed."""

from __future__ import annotations

from pathlib import Path

from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from simulation.in_process import InProcessGrid, simulated

from clients.app import app as client_app
from fed.settings.settings import Settings
from server_strategy.run import run

RUN_ID = 7


class RecordingGrid(InProcessGrid):
    """Simulated SuperNodes, or devices by their node configs.

    Attributes:
        seen: (direction, node, message) of all that crossed.
        gone: nodes whose process was killed: Flower answers for them, in the SuperLink's name.
        before_send: told the type of each message before it goes.
    """

    def __init__(self, nodes: int | list[dict], settings: Settings) -> None:
        super().__init__(simulated(nodes) if isinstance(nodes, int) else nodes, settings, RUN_ID)
        self.gone: set[int] = set()
        self.seen: list[tuple[str, int, Message]] = []
        self.before_send = lambda message_type: None

    def deliver(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        self.before_send(message.metadata.message_type)
        self.seen.append(("down", node, message))
        if node in self.gone:
            reply = Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
            return reply
        reply = client_app(message, self._contexts[node])  # a defect is not to be hidden by an error reply
        self.seen.append(("up", node, reply))
        return reply


def federate(settings: Settings, nodes: int | list[dict], before_send=None) -> tuple[dict, RecordingGrid, Path]:
    """A whole run; returns (report, grid, folder of results)."""
    grid = RecordingGrid(nodes, settings)
    if before_send:
        grid.before_send = before_send
    folder = settings.run_folder(RUN_ID)
    return run(grid, settings, folder), grid, folder
