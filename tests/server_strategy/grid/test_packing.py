"""Users of large nodes are asked in waves, and all of them answer as they would in one."""

import json

import pytest
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.portions import SIZE
from fed.communication.ledger import Ledger
from server_strategy.grid import packing
from server_strategy.grid.asking import ask
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.packing import MOST_USERS, waves
from server_strategy.grid.user_grid import UserGrid


def test_users_of_a_node_keep_their_order_and_no_wave_has_more_than_the_most_of_a_node(monkeypatch):
    monkeypatch.setattr(packing, "MOST_USERS", 2)
    users = ["a1", "b1", "a2", "a3", "a4", "a5", "b2"]
    assert waves(users, lambda user: user[0]) == [["a1", "b1", "a2", "b2"], ["a3", "a4"], ["a5"]]


def test_where_no_node_has_more_there_is_one_wave_as_it_came():
    users = ["b", "a", "c"]
    assert waves(users, lambda _: 1)[0] is users and waves([], lambda _: 1) == [[]]


def test_a_wave_is_whole_portions():
    assert MOST_USERS % SIZE == 0  # so that who shares a batch does not depend on waves


class Nodes:
    """SuperNodes that answer with their users' numbers; one user's reply is an error."""

    def __init__(self):
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
        self.asked: list[list[int]] = []

    def send_and_receive(self, messages, *, timeout=None):
        messages = list(messages)
        users_of = [json.loads(str(message.content["host"]["users"])) for message in messages]
        self.asked.append([len(users) for users in users_of])
        for users, message in zip(users_of, messages, strict=True):
            reply = RecordDict()
            for place, user in enumerate(users):
                bad = user == "user-3"
                record = ConfigRecord({"reason": "none"}) if bad else MetricRecord({"n": int(user[5:])})
                reply[f"{place}/{'error' if bad else 'metrics'}"] = record
            yield Message(reply, reply_to=message)


@pytest.mark.parametrize("most", [2, 8192])
def test_what_is_read_of_users_in_waves_is_what_is_read_of_them_in_one(monkeypatch, most):
    monkeypatch.setattr(packing, "MOST_USERS", most)
    nodes, ledger = Nodes(), Ledger()
    hosts = {f"user-{number}": 100 + number % 2 for number in range(9)}
    grid = UserGrid(nodes, hosts, translation=Translation({}, "float32"), ledger=ledger)
    answers = ask(grid, list(hosts), RecordDict(), "evaluate", lambda reply: reply.content["metrics"]["n"])
    assert list(answers.values.items()) == [(f"user-{n}", n) for n in range(9) if n != 3]
    assert answers.errors == {"user-3": "none"}
    assert nodes.asked == ([[2, 2], [2, 2], [1]] if most == 2 else [[5, 4]])
    assert len(ledger.entries) == 9 + 8
