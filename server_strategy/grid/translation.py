"""Between the arrays that strategies see and those that travel: shapes in wire order, and dtypes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, Message, RecordDict

from fed.communication import wire
from fed.methods.method import Tensors


@dataclass(frozen=True)
class Translation:
    """How the arrays of a method travel.

    Attributes:
        shapes: name -> shape of each tensor of an edit, in wire order.
        wire_dtype: the dtype on the wire.
    """

    shapes: dict[str, tuple[int, ...]]
    wire_dtype: str

    @property
    def numbers(self) -> int:
        """How many numbers an edit has."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def bytes_per_number(self) -> int:
        """Of an edit on the wire."""
        return wire.bytes_per_number(self.wire_dtype)

    @property
    def wide(self) -> str:
        """The dtype that strategies see: float32, or float64 where the wire has it."""
        return "float64" if self.wire_dtype == "float64" else "float32"

    def to_record(self, tensors: Tensors) -> ArrayRecord:
        """Tensors as the flat array that strategies see."""
        return ArrayRecord({"edit": Array(wire.pack({name: tensors[name] for name in self.shapes}, self.wide))})

    def from_record(self, arrays: ArrayRecord) -> Tensors:
        """The inverse of `to_record`; strategies that compute in float64 are narrowed."""
        return wire.unpack(arrays["edit"].numpy().astype(self.wide), self.shapes, self.wide)

    def edit_of(self, message: Message) -> Tensors:
        """The edit that a message to a user, or a user's reply, carries."""
        return self.from_record(message.content.array_records["arrays"])

    def put_edit(self, message: Message, edit: Tensors) -> None:
        """Have the message carry this edit; its other records stay the same objects, which messages may share."""
        message.content = RecordDict({**message.content, "arrays": self.to_record(edit)})

    def down(self, arrays: ArrayRecord) -> ArrayRecord:
        """A strategy's arrays as they go on the wire."""
        return ArrayRecord({"edit": Array(wire.pack(self.from_record(arrays), self.wire_dtype))})

    def arrived(self, arrays: ArrayRecord) -> Tensors:
        """A strategy's arrays as users read them once they have travelled."""
        return wire.unpack(self.down(arrays)["edit"].numpy(), self.shapes, self.wire_dtype)

    def up(self, arrays: ArrayRecord) -> ArrayRecord:
        """Arrays off the wire as a strategy averages them."""
        return self.to_record(wire.unpack(arrays["edit"].numpy(), self.shapes, self.wire_dtype))
