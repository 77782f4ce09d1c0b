"""Replies of many users in few objects: what the server takes apart is what each user's handler put in."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.task_identity import TaskIdentity

from clients import messages
from clients.messages import bundled
from fed.communication.ledger import Ledger
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.user_grid import UserGrid

USERS = [f"u{n:02d}" for n in range(12)]


def reply(users: int = len(USERS)) -> RecordDict:
    """Each user's arrays and metrics; the fourth one failed, the fifth says a word."""
    content = RecordDict()
    for place in range(users):
        if place == 3:
            content[f"{place}/error"] = ConfigRecord({"reason": "too few rows"})
            continue
        content[f"{place}/arrays"] = ArrayRecord({"edit": Array(np.full(3, place / 7, dtype=np.float32))})
        content[f"{place}/metrics"] = MetricRecord({"train-loss": 0.1 + place / 3, "num-examples": place})
        if place == 4:
            content[f"{place}/node"] = ConfigRecord({"collective": "abc"})
    return content


def received(content: RecordDict) -> tuple[list[Message], Ledger]:
    class Node:
        def send_and_receive(self, messages, *, timeout=None):
            return [Message(content, reply_to=message) for message in messages]

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    ledger = Ledger()
    grid = UserGrid(Node(), dict.fromkeys(USERS, 1000), translation=Translation({"R": (3,)}, "float32"), ledger=ledger)
    messages = [Message(RecordDict(), dst_node_id=n + 1, message_type="train") for n in range(len(USERS))]
    return list(grid.send_and_receive(messages)), ledger


@pytest.mark.parametrize("at_most", [messages.AT_MOST, 30], ids=["in one array", "in several"])
def test_the_server_sees_and_counts_what_it_would_have_without(monkeypatch, at_most):
    monkeypatch.setattr(messages, "AT_MOST", at_most)
    packed = bundled(reply())
    assert len(packed.array_records) == (1 if at_most == messages.AT_MOST and at_most > 30 else 6)
    (plain, counted), (ours, ours_counted) = received(reply()), received(packed)
    assert ours_counted.entries == counted.entries and len(counted.entries) == 2 * len(USERS) - 1
    for one, other in zip(plain, ours, strict=True):
        assert one.metadata.src_node_id == other.metadata.src_node_id and one.has_error() == other.has_error()
        if one.has_error():
            assert one.error.reason == other.error.reason == "too few rows"
            continue
        assert one.content.keys() == other.content.keys()
        assert np.array_equal(*(m.content.array_records["arrays"]["edit"].numpy() for m in (one, other)))
        for kind in ("metric_records", "config_records"):
            assert dict(getattr(one.content, kind)) == dict(getattr(other.content, kind))


def test_numbers_stay_where_there_is_room_for_numbers_alone():
    packed = bundled(reply())
    assert {key: type(record).__name__ for key, record in packed.items()} == {
        "users/arrays/0": "ArrayRecord",
        "users/places": "ConfigRecord",
        "users/metrics": "MetricRecord",
        "users/error": "ConfigRecord",
        "users/node": "ConfigRecord",
    }


def test_a_bundle_takes_as_many_objects_whatever_the_number_of_users():
    few, many = (len(get_all_nested_objects(bundled(reply(users)))) for users in (5, 12))
    assert few == many < len(get_all_nested_objects(reply(5)))


def test_a_reply_for_one_user_and_one_for_none_stay_as_they_are():
    alone, hello = reply(1), RecordDict({"node": ConfigRecord({"part": 0})})
    assert bundled(alone) is alone and bundled(hello) is hello
