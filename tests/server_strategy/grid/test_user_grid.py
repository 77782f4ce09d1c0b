"""Users as nodes: what shares a message, what a user gets of its own, and that each counts as if alone."""

import gc
import json
import weakref

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fed.communication.ledger import Ledger
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.user_grid import UserGrid

HOSTS = {"ann": 1000, "bob": 1000, "cem": 1001, "dee": 1000}


class Nodes:
    """A Grid of SuperNodes that answer with how many rows they were asked for; keeps what it was sent."""

    def __init__(self):
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
        self.seen = {}

    def send_and_receive(self, messages, *, timeout=None):
        for message in messages:
            self.seen[message.metadata.dst_node_id] = content = message.content
            users = json.loads(content.config_records["host"]["users"])
            reply = RecordDict({f"{place}/metrics": MetricRecord({"n": place}) for place, _ in enumerate(users)})
            yield Message(reply, reply_to=message)


def edit(value):
    return ArrayRecord({"edit": Array(np.full(3, value, dtype=np.float32))})


def value(record):
    return float(record["edit"].numpy()[0])


@pytest.fixture
def grid():
    nodes, ledger = Nodes(), Ledger()
    made = UserGrid(nodes, HOSTS, translation=Translation({"R": (3,)}, "float32"), ledger=ledger)
    return made, nodes, ledger


def test_one_content_for_all_travels_once_a_node(grid):
    users, nodes, _ = grid
    users.send(list(HOSTS), RecordDict({"arrays": edit(1.0), "config": ConfigRecord({"k": 1})}), "train")
    assert set(nodes.seen[1000]) == {"arrays", "config", "host"} == set(nodes.seen[1001])
    assert json.loads(nodes.seen[1000].config_records["host"]["users"]) == ["ann", "bob", "dee"]


def test_contents_that_differ_go_under_the_users_place_and_what_they_share_still_once(grid):
    users, nodes, ledger = grid
    config = ConfigRecord({"k": 1})
    messages = [
        Message(RecordDict({"arrays": edit(number), "config": config}), dst_node_id=number, message_type="train")
        for number in (4, 2, 1, 3)
    ]
    replies = list(users.send_and_receive(messages))
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2, 3, 4]
    sent = nodes.seen[1000]
    assert set(sent) == {"0/arrays", "1/arrays", "2/arrays", "config", "host"}
    assert [value(sent.array_records[f"{place}/arrays"]) for place in range(3)] == [1.0, 2.0, 4.0]  # ann, bob, dee
    assert set(nodes.seen[1001]) == {"arrays", "config", "host"}  # alone on its node: all is shared
    assert value(nodes.seen[1001].array_records["arrays"]) == 3.0
    down = [entry for entry in ledger.entries if entry.direction == "down"]
    assert sorted(entry.user for entry in down) == sorted(HOSTS)
    assert {entry.payload for entry in down} == {12}  # one edit each, however it was packed


def test_a_user_with_an_edit_of_its_own_costs_what_it_would_cost_alone(grid):
    users, _, ledger = grid
    users.send(["bob"], RecordDict({"arrays": edit(2.0)}), "train")
    (alone,) = (entry for entry in ledger.entries if entry.direction == "down")
    contents = [RecordDict({"arrays": edit(number)}) for number in (1, 2)]
    list(
        users.send_and_receive(
            [Message(content, dst_node_id=n, message_type="train") for n, content in enumerate(contents, 1)]
        )
    )
    together = [entry for entry in ledger.entries if entry.direction == "down" and entry.user == "bob"][-1]
    assert together == alone


def test_what_a_node_sent_is_let_go_before_the_next_nodes_is_taken_apart(grid, monkeypatch):
    users, nodes, _ = grid
    alive, unpack = [], UserGrid._unpack

    def answers(messages, *, timeout=None):
        return list(Nodes.send_and_receive(nodes, messages))

    def watched(self, reply, messages):
        alive.append(weakref.ref(reply.content))
        gc.collect()
        assert [content() is not None for content in alive] == [False] * (len(alive) - 1) + [True]
        return unpack(self, reply, messages)

    monkeypatch.setattr(nodes, "send_and_receive", answers)
    monkeypatch.setattr(UserGrid, "_unpack", watched)
    assert len(users.send(list(HOSTS), RecordDict(), "train")) == 4 and len(alive) == 2
