"""Nodes under supervision: those that died are asked again, those that are silent end the run at its deadline."""

from __future__ import annotations

import time

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.task_identity import TaskIdentity
from simulation.in_process import InProcessGrid, simulated

from server_strategy.grid.nodes import RunError, answered
from server_strategy.grid.wrapped.supervised import SupervisedGrid


class Nodes(InProcessGrid):
    """Two nodes that say their number, that die (a process) or fail (a user's defect) so often, or stay silent."""

    def __init__(self, settings, *, deaths=0, code=ErrorCode.UNKNOWN, silent=()):
        super().__init__(simulated(2), settings, 7)
        self.deaths, self.code, self.silent, self.seen = deaths, code, silent, []

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        replies = super().send_and_receive([m for m in messages if m.metadata.dst_node_id not in self.silent])
        if len(list(messages)) > len(replies := list(replies)) and timeout is not None:
            time.sleep(timeout)
        return replies

    def deliver(self, message):
        self.seen.append(message.metadata.dst_node_id)
        if message.metadata.dst_node_id == 1001 and self.deaths:
            self.deaths -= 1
            return Message(Error(self.code, "The actor died"), reply_to=message)
        return Message(RecordDict({"n": ConfigRecord({"node": message.metadata.dst_node_id})}), reply_to=message)


@pytest.fixture
def ask(settings):
    """ask(deaths=1, deadline=0, …) -> ({node: reply}, the nodes, warnings)."""

    def exchange(deadline=0.0, **nodes):
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
        warnings: list[str] = []
        inner = Nodes(settings(), **nodes)
        grid = SupervisedGrid(inner, deadline=deadline, warn=warnings.append)
        messages = [Message(RecordDict(), dst_node_id=node, message_type="query.hello") for node in (1000, 1001)]
        replies = {
            messages[place].metadata.dst_node_id: reply
            for place, reply in answered(grid.send_and_receive(messages), messages)
        }
        return replies, inner, warnings

    return exchange


def test_nodes_whose_process_died_are_asked_once_more_and_their_answer_is_to_the_first_question(ask):
    replies, nodes, warnings = ask(deaths=1)
    assert {node: reply.content["n"]["node"] for node, reply in replies.items()} == {1000: 1000, 1001: 1001}
    assert sorted(nodes.seen) == [1000, 1001, 1001]
    assert warnings == ["1 of 2 SuperNodes lost a process and are asked again"]


def test_who_dies_again_has_failed_and_who_fails_otherwise_is_not_asked_again(ask):
    replies, nodes, _ = ask(deaths=2)
    assert replies[1001].has_error() and not replies[1000].has_error() and len(nodes.seen) == 3
    replies, nodes, warnings = ask(deaths=2, code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION)
    assert replies[1001].has_error() and len(nodes.seen) == 2 and warnings == []


def test_a_silent_node_ends_the_run_at_its_deadline_and_says_so(ask):
    with pytest.raises(RunError, match="run-deadline = 0.2 s, and 1 of 2 SuperNodes have not answered; .* resume"):
        ask(deadline=0.2, silent=(1001,))
