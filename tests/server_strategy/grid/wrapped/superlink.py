"""A real SuperLink's state and handlers in this process, Flower's own grid on them, and nodes that push what they like.

What is left out is HTTP: each request and answer is made into bytes and read again, and what a handler raises is the
status error that a server would answer with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import httpx
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import ObjectTree, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.server.superlink.linkstate import LinkStateFactory
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, NOOP_FEDERATION_ID, TaskType
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid.http_grid import HttpGrid
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers

Objects = dict[str, bytes]  # object id -> content, children first, the message last


def made(kind: str, children: list[str], body: bytes) -> bytes:
    """An object as Flower writes them: its kind, its parts' ids, how long its body is, and that."""
    return f"{kind} {','.join(children)} {len(body)}".encode() + b"\x00" + body


def name(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class SuperLink:
    """One run of so many nodes, which all are online.

    Attributes:
        grid: Flower's own, of a ServerApp.
        nodes: ids of the nodes.
        answer: what a node does with a message that the ServerApp has just sent: answer(node, message).
    """

    def __init__(self, nodes: int) -> None:
        factory = LinkStateFactory(FLWR_IN_MEMORY_DB_NAME, NoOpFederationManager(), ObjectStoreFactory())
        self.state: Any = factory.state()
        config = (None, None, None, {}, NOOP_FEDERATION_ID, None, None, TaskType.SERVER_APP)
        self.run_id = self.state.create_run(*config)
        (run,) = self.state.get_run_info(run_ids=[self.run_id])
        self.state.claim_task(run.primary_task_id)
        self.state.activate_task(run.primary_task_id)
        self._task = self.state.task_store[run.primary_task_id]
        self.nodes = [self.state.create_node("", "", bytes([place]), 1e6) for place in range(nodes)]
        for node in self.nodes:
            self.state.activate_node(node, 1e6)
        self.grid = HttpGrid("nowhere:0", insecure=True, token="token")
        self.grid._client = self  # type: ignore[assignment]
        self.grid.set_run(run)
        self.identify()
        self.answer: Callable[[int, Message], None] = lambda node, message: None
        self._handing_out = False

    def identify(self) -> None:
        """From now on messages are of this run, as Flower sets in a ServerApp's process."""
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = self._task.task_id, self.run_id, 1

    def __getattr__(self, method: str) -> Any:
        """The Runtime API as a ServerApp's process calls it."""
        handlers = {
            "GetNodes": runtime_handlers.get_nodes,
            "PushMessages": runtime_handlers.push_messages,
            "PushObject": runtime_handlers.push_object,
            "PullMessages": runtime_handlers.pull_messages,
            "PullObject": runtime_handlers.pull_object,
            "ConfirmMessageReceived": runtime_handlers.confirm_message_received,
        }
        if method not in handlers:
            raise AttributeError(method)

        def call(request: Any) -> Any:
            if method == "PullMessages":
                self._hand_out()
            return self._called(handlers[method], request)

        return call

    def _called(self, handler: Any, request: Any) -> Any:
        try:
            answer = handler(type(request).FromString(request.SerializeToString()), self.state, self._task)
        except Exception as error:
            response = httpx.Response(500, request=httpx.Request("POST", "http://nowhere"))
            raise httpx.HTTPStatusError(str(error), request=response.request, response=response) from error
        try:
            return type(answer).FromString(answer.SerializeToString())
        except Exception as error:
            raise ValueError("Invalid protobuf response payload") from error

    def _hand_out(self) -> None:
        """Every node gets what is for it, and answers."""
        if self._handing_out:
            return
        self._handing_out = True
        for node in self.nodes:
            while (message := self._next(node)) is not None:
                self.answer(node, message)
        self._handing_out = False

    def _next(self, node: int) -> Message | None:
        request = PullMessagesRequest(node=Node(node_id=node))
        answer = fleet_handlers.pull_messages(request, self.state, self.state.object_store)
        if not answer.messages_list:
            return None
        head = message_from_proto(answer.messages_list[0])
        contents: dict[str, bytes] = {}
        trees = [answer.message_object_trees[0]]
        for tree in trees:
            contents[tree.object_id] = self.state.object_store.get(tree.object_id)
            trees += tree.children
        message: Any = inflate_object_from_contents(head.metadata.message_id, contents)
        message.metadata.__dict__["_message_id"] = head.metadata.message_id
        return message

    def reply(self, message: Message, content: RecordDict | Message) -> None:
        """As an honest node replies."""
        reply = Message(content, reply_to=message) if isinstance(content, RecordDict) else content
        objects = {key: item.deflate() for key, item in get_all_nested_objects(reply).items()}
        self.push(reply, objects, get_object_tree(reply))

    def push(
        self, reply: Message, objects: Objects, tree: ObjectTree, *, message_id: str = "", upload: bool = True
    ) -> None:
        """As any node may: this head, this tree, and these objects, the message among them."""
        reply.metadata.__dict__["_message_id"] = message_id or tree.object_id
        head = message_to_proto(remove_content_from_message(reply))
        node = Node(node_id=reply.metadata.src_node_id)
        pushed = fleet_handlers.push_messages(
            PushMessagesRequest(node=node, messages_list=[head], message_object_trees=[tree]), self.state
        )
        for object_id in pushed.objects_to_push if upload else ():
            request = PushObjectRequest(
                node=node,
                run_id=self.run_id,
                object_id=object_id,
                object_content=objects.get(object_id, b""),
                session_id=pushed.session_id,
            )
            fleet_handlers.push_object(request, self.state)
