"""Between the arrays that strategies see and those that travel: shapes in wire order, dtypes, changes and whole edits.

Strategies see whole edits. With a narrow wire-dtype a user's reply is the change from the edit that its message
carried; that edit and the change give the user's edit again, as the user itself reckons it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from flwr.app import Array, ArrayRecord, Message, RecordDict
from numpy.typing import NDArray

from fed.communication import changes, wire
from fed.communication.quantization import Packing
from fed.methods.method import Tensors
from fed.settings.settings import Settings
from server_strategy.screening.arrays import change_of, edit_in, numbers_of, packed_of


@dataclass(frozen=True)
class Translation:
    """How the arrays of a method travel.

    Attributes:
        shapes: name -> shape of each tensor of an edit, in wire order.
        wire_dtype: the dtype on the wire.
        deflated: whether changes are entropy-coded.
    """

    shapes: dict[str, tuple[int, ...]]
    wire_dtype: str
    deflated: bool = False

    @classmethod
    def of(cls, shapes: dict[str, tuple[int, ...]], settings: Settings) -> Translation:
        """By the run's settings."""
        return cls(shapes, settings.wire_dtype, settings.wire_coding == "deflate")

    @property
    def whole(self) -> Translation:
        """The same without changes: whole edits both ways."""
        return Translation(self.shapes, self.wide)

    @cached_property
    def packing(self) -> Packing | None:
        """How changes travel; None where whole edits do."""
        if not wire.is_narrow(self.wire_dtype) or not self.shapes:
            return None
        return changes.packing(self.shapes, self.wire_dtype, deflated=self.deflated)

    @property
    def numbers(self) -> int:
        """How many numbers an edit has."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def most_bytes(self) -> int:
        """The most that the array of a user's reply has."""
        return self.packing.most_bytes if self.packing else wire.bytes_of(self.shapes, self.wire_dtype)

    @property
    def wide(self) -> str:
        """The dtype that strategies see, and that a whole edit travels in."""
        return wire.whole_dtype(self.wire_dtype)

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
        """A strategy's arrays as they go on the wire, whole."""
        return self.to_record(self.from_record(arrays))

    def arrived(self, arrays: ArrayRecord) -> Tensors:
        """A strategy's arrays as users read them once they have travelled."""
        return self.from_record(self.down(arrays))

    def rows(self, record: object, users: int) -> NDArray[Any]:
        """The arrays of several users' replies, a row each, as they travelled. Raises Breach."""
        if self.packing:
            return packed_of(edit_in(record), self.packing, users)
        return numbers_of(edit_in(record), (users, self.numbers), self.wide, finite=False)

    def up(self, record: object, message: Message) -> ArrayRecord:
        """A reply's array off the wire as a strategy averages it.

        Args:
            record: the reply's `arrays`.
            message: to the user, with the edit that it was sent, as strategies see it.
        Raises:
            Breach: it is no edit, and no change of one; or the edit that it leads to is not finite.
        """
        array = edit_in(record)
        if self.packing is None:
            numbers_of(array, (self.numbers,), self.wide)
            return self.to_record(wire.unpack(array.numpy(), self.shapes, self.wide))
        changed = self.to_record(changes.applied(self.edit_of(message), change_of(array, self.packing)))
        numbers_of(changed["edit"], (self.numbers,), self.wide)
        return changed
