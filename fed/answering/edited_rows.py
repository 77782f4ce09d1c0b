"""A row to read or to continue, and the edits that apply to it."""

from __future__ import annotations

from dataclasses import dataclass

from fed.edits.stack import Edits
from fed.forward.batching import Row


@dataclass(frozen=True)
class EditedRow:
    """A row under some edits of a stack.

    Attributes:
        edits: of each layer of the stack, the number of the row's edit or None; () is none of any layer.
    """

    row: Row
    edits: Edits = ()
