"""What comes back from stage 2: losses by epoch, the tenth behind the ninth."""

from __future__ import annotations

from flwr.app import Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from server_strategy.personalization import personalize


class Answering:
    """A grid whose two users have trained twelve epochs on 1 and on 3 rows."""

    def node_of(self, user):
        return 1

    def send(self, users, content, message_type):
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1  # as Flower sets in its processes
        replies = {}
        for rows, user in zip((1, 3), users, strict=True):
            request = Message(content, dst_node_id=1, message_type=message_type)
            losses = {f"epoch-{n}": float(n * rows) for n in range(1, 13)}
            metrics = MetricRecord({"num-examples": rows, "steps": 1} | losses)
            replies[user] = Message(RecordDict({"metrics": metrics}), reply_to=request)
        return replies


def test_epochs_come_in_the_order_of_their_numbers():
    users, losses = personalize(Answering(), ["a", "b"], "none", lambda text: None)
    assert users == ["a", "b"] and [row["epoch"] for row in losses] == list(range(1, 13))
    assert [row["loss"] for row in losses] == [(n * 1 + 3 * n * 3) / 4 for n in range(1, 13)]
