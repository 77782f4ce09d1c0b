"""Replies off the network, each read by itself: what breaks Flower's reader is the error of the node that sent it.

Flower's grid of real SuperNodes (`HttpGrid`, 1.42) reads all replies that have come in one go, each from objects that
its node uploaded. One that cannot be read raises there, and the others, which the SuperLink has given away by then, are
lost with it. It believes a reply about whom it answers, waits hours for objects that never come, and makes an array as
long as the list of its parts, each part as often as it is named. Here a reply answers what the SuperLink says it does,
has to be within what its request can be answered with, and is an error where it cannot be read.

A SuperLink that is gone, or a run that was stopped, ends the run as ever.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Error, Message
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
)
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from server_strategy.grid.wrapped.wrapper import WrappedGrid
from server_strategy.screening.breach import Breach, shown

_HTTP = "flwr.superlink.grid.http_grid"  # loaded where the SuperNodes are processes, and nowhere else
UNREADABLE = 101  # code of the error that such a reply becomes
PAUSE = 1.0  # seconds between two looks for replies
WIDEST = 8  # bytes of a number on the wire
MOST_BESIDE = 4 << 20  # bytes of a reply beside its arrays' numbers
MOST_OBJECTS = 4096  # of a reply, and as many for every user that it is of


@dataclass
class _Awaited:
    """A request, and what has come of its reply.

    Attributes:
        request: as it was sent.
        users: how many it was for.
        message_id: the reply's; "" until it has come.
        missing: ids of its objects that have not been read yet.
        contents: object id -> bytes of those that have.
        size: bytes of these.
    """

    request: Message
    users: int
    message_id: str = ""
    missing: list[str] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    size: int = 0


class ReadingGrid(WrappedGrid):
    """A Grid that reads real SuperNodes' replies one by one; any other Grid's it hands on.

    Promise: whatever bytes a node sends, the other nodes' replies arrive, and its own is an error that says why, within
    the memory that an honest reply may take (tests/server_strategy/grid/wrapped/test_reading.py).

    Args:
        grid: the SuperNodes.

    Attributes:
        numbers: of one user's edit in the present run, once that is known.
    """

    def __init__(self, grid: Grid) -> None:
        super().__init__(grid)
        self._http: Any = sys.modules.get(_HTTP)
        self.numbers = 0

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As any Grid's: the replies that have come within `timeout` seconds; None: all."""
        requests = list(messages)
        if self._http is None or not isinstance(self._grid, self._http.HttpGrid):
            return list(self._grid.send_and_receive(requests, timeout=timeout))
        ends = time.monotonic() + (math.inf if timeout is None else timeout)
        self._grid.push_messages(requests)  # which gives them their ids
        waiting = [_Awaited(request, _users(request)) for request in requests]
        replies: list[Message] = []
        while True:
            still = []
            for awaited in waiting:
                reply = self._read(awaited)
                if reply is None:
                    still.append(awaited)
                else:
                    replies.append(reply)
            waiting = still
            if not waiting or (left := ends - time.monotonic()) <= 0:
                return replies
            time.sleep(min(PAUSE, left))

    def _read(self, awaited: _Awaited) -> Message | None:
        """The reply to one request, an error where it cannot be read; None: it has not come, or not all of it."""
        try:
            if not awaited.message_id:
                self._look_for(awaited)
            if awaited.message_id and self._fetch(awaited):
                return self._inflated(awaited)
            return None
        except Breach as breach:
            return Message(Error(UNREADABLE, str(breach)), reply_to=awaited.request)

    def _look_for(self, awaited: _Awaited) -> None:
        """Ask the SuperLink whether the reply has come, and what it is made of. Raises Breach."""
        message_id = awaited.request.metadata.message_id
        answer = self._ask("PullMessages", PullAppMessagesRequest(message_ids=[message_id]))
        for head, tree in zip(answer.messages_list, answer.message_object_trees, strict=False):
            if head.metadata.reply_to_message_id == message_id:
                awaited.missing = _objects(tree, MOST_OBJECTS * (1 + awaited.users))
                awaited.message_id = head.metadata.message_id

    def _fetch(self, awaited: _Awaited) -> bool:
        """Fetch the objects that have been uploaded since; whether all are there. Raises Breach."""
        grid = self._grid
        while awaited.missing:
            object_id = awaited.missing[-1]
            request = PullObjectRequest(node=grid.node, run_id=grid.run.run_id, object_id=object_id)
            answer = self._ask("PullObject", request)
            if not answer.object_found:
                raise Breach("all parts of a reply must be uploaded, and in time")
            if not answer.object_available:
                return False
            awaited.contents[object_id] = answer.object_content
            awaited.missing.pop()
            awaited.size += len(answer.object_content)
            self._within(awaited.size, awaited.users)
        grid._runtime_client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(node=grid.node, run_id=grid.run.run_id, message_object_id=awaited.message_id)
        )
        return True

    def _within(self, size: int, users: int) -> None:
        most = users * self.numbers * WIDEST + MOST_BESIDE
        if size > most:
            raise Breach(f"a reply must have at most {most} bytes", f"{size} or more")

    def _ask(self, method: str, request: Any) -> Any:
        """Ask the SuperLink about one reply. Raises Breach where it cannot serve it."""
        try:
            return getattr(self._grid._runtime_client, method)(request)
        except self._http.httpx.HTTPStatusError as error:  # of this reply alone: a SuperLink that is gone says nothing
            raise Breach("the SuperLink must be able to hand a reply on", type(error).__name__) from None

    def _inflated(self, awaited: _Awaited) -> Message:
        """The reply, of objects that are all there. Raises Breach."""
        try:
            self._within(_written_out(awaited.contents), awaited.users)
            reply: Any = inflate_object_from_contents(awaited.message_id, awaited.contents)
            if not isinstance(reply, Message):
                raise Breach("a reply must be a Message", shown(type(reply).__name__))
            if reply.has_error():
                return Message(Error(reply.error.code, reply.error.reason), reply_to=awaited.request)
            return Message(reply.content, reply_to=awaited.request)
        except Breach:
            raise
        except Exception as error:  # a stranger's bytes may raise anything in Flower's reader
            raise Breach("a reply must be made as Flower makes messages", type(error).__name__) from None


def _users(request: Message) -> int:
    """How many users a request is for."""
    host = request.content.get("host")
    return len(json.loads(str(host["users"]))) if host else 1


def _objects(tree: ObjectTree, most: int) -> list[str]:
    """The ids of a message's objects, each once. Raises Breach where they are too many."""
    ids: dict[str, None] = {}
    branches = [tree]
    for branch in branches:  # which grows on the way
        ids[branch.object_id] = None
        branches += branch.children
        if len(branches) > most:
            raise Breach(f"a reply must be made of at most {most} objects")
    return list(ids)


def _written_out(contents: dict[str, bytes]) -> int:
    """How many bytes a reply's arrays have: a part counts as often as an array names it."""
    size = 0
    for content in contents.values():
        kind, parts, _ = get_object_head_values_from_object_content(content)
        if kind == "Array":
            _, _, body = content.partition(b"\x00")
            size += sum(len(contents[parts[place]]) for place in json.loads(body)["arraychunk_ids"])
    return size
