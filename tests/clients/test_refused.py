"""A device that takes no part is told why, in one plain line of its own log."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from clients.app import app


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (RecordDict({"refusal": ConfigRecord({"reason": "stop one of the two"})}), "stop one of the two"),
        (RecordDict({"refusal": ConfigRecord({"reason": "x\x1b[31m\nerror: y"})}), "x\\u{1b}[31m error: y"),
        (RecordDict(), "no reason was given"),
    ],
)
def test_a_device_says_why_the_server_refuses_it_in_one_plain_line(content, said, capsys):
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    context = Context(run_id=7, node_id=5, node_config={"user-id": "a"}, state=RecordDict(), run_config={})
    reply = app(Message(content, dst_node_id=5, message_type="query.refused"), context)
    assert not reply.has_error() and not list(reply.content)
    assert capsys.readouterr().err == f"error: the server refuses this device: {said}\n"
