"""The numbers beside users' edits: their weights, and the losses that they tell or keep."""

from __future__ import annotations

import math
from collections.abc import Sequence

from flwr.app import Message, MetricRecord, RecordDict


def mean_loss(replies: Sequence[Message], weights: Sequence[float]) -> float | None:
    """The mean training loss of those who tell theirs, which a device's policy may not; None where nobody does."""
    told = [
        (weight, number_of(reply, "train-loss"))
        for reply, weight in zip(replies, weights, strict=True)
        if "train-loss" in reply.content.metric_records["metrics"]
    ]
    return math.fsum(w * loss for w, loss in told) / math.fsum(w for w, _ in told) if told else None


def alike(replies: Sequence[Message]) -> list[Message]:
    """The replies, without losses where one tells none: a stock strategy wants the same numbers of all."""
    if len({"train-loss" in reply.content.metric_records["metrics"] for reply in replies}) < 2:
        return list(replies)
    alike = []
    for reply in replies:
        metrics = MetricRecord({"num-examples": reply.content.metric_records["metrics"]["num-examples"]})
        content = RecordDict({"arrays": reply.content["arrays"], "metrics": metrics})
        alike.append(Message(content, dst_node_id=1, message_type="train"))
    return alike


def number_of(reply: Message, name: str) -> float:
    value = reply.content.metric_records["metrics"][name]
    assert isinstance(value, int | float)
    return float(value)
