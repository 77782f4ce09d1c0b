"""The three sizes of a message's content: payload, record and wire bytes.

Flower ships a message as a tree of objects, each addressed by its SHA-256, and drops duplicates; the sum of their
deflated sizes is what crosses (FlowerTune's budget counts `record`). The tree walk is internal to Flower, so it is
used here and nowhere else; so is its switch that hashes an object once instead of once for every parent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass

from flwr.app import RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, no_object_id_recompute


@dataclass(frozen=True)
class Sizes:
    """Bytes. payload: numbers of the arrays alone. record: the array records as Flower counts them. wire: all."""

    payload: int
    record: int
    wire: int


_once: ContextVar[bool] = ContextVar("once", default=False)


@contextmanager
def measured_once() -> Iterator[None]:
    """Objects that several contents share are hashed once while the context lasts; they must not change in it."""
    token = _once.set(True)
    try:
        with no_object_id_recompute():
            yield
    finally:
        _once.reset(token)


def measure(content: RecordDict) -> Sizes:
    """Sizes of one message's content, as if it travelled alone."""
    arrays = [array for record in content.array_records.values() for array in record.values()]
    payload = sum(array.numpy().nbytes for array in arrays)
    record = sum(record.count_bytes() for record in content.array_records.values())
    with nullcontext() if _once.get() else measured_once():
        wire = sum(len(item.deflate()) for item in get_all_nested_objects(content).values())
    return Sizes(payload, record, wire)
