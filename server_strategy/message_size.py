"""The three sizes of a message's content: payload, record and wire bytes.

Flower ships a message as a tree of objects, each addressed by its SHA-256, and drops duplicates; the sum of their
deflated sizes is what crosses (FlowerTune's budget counts `record`). The tree walk is internal to Flower, so it is
used here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects


@dataclass(frozen=True)
class Sizes:
    """Bytes. payload: numbers of the arrays alone. record: the array records as Flower counts them. wire: all."""

    payload: int
    record: int
    wire: int


def measure(content: RecordDict) -> Sizes:
    """Sizes of one message's content, as if it travelled alone."""
    arrays = [array for record in content.array_records.values() for array in record.values()]
    payload = sum(array.numpy().nbytes for array in arrays)
    record = sum(record.count_bytes() for record in content.array_records.values())
    wire = sum(len(item.deflate()) for item in get_all_nested_objects(content).values())
    return Sizes(payload, record, wire)
