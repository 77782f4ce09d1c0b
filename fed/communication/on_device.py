"""What a device keeps of a narrow wire from round to round: the last broadcast, and what its last change left out.

A user who joins late, or has lost it, is sent the whole edit and starts from nothing left out. Both are kept in the
user's own folder of the vault, for the latest round and the one before, so that a round that is done again has the same
bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fed.communication import changes, wire
from fed.communication.changes import Tensors
from fed.communication.quantization import Packing
from fed.privacy.tensor_files import fingerprint
from fed.randomness import generator
from fed.resuming.of_run import BROADCAST, FEEDBACK, OfRun

NOT_HELD = "the change of a broadcast needs the one before it, which this user does not have"


class NotHeld(ValueError):
    """A change came, and what it changes is not here.

    Attributes:
        public: what the server hears of it; it then sends the whole edit.
    """

    public = NOT_HELD

    def __init__(self) -> None:
        super().__init__(NOT_HELD)


class Wire(Protocol):
    """The settings that decide how changes travel."""

    @property
    def wire_dtype(self) -> str: ...
    @property
    def wire_coding(self) -> str: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True)
class OnDevice:
    """One run's changes, on the side of its users.

    Attributes:
        of_run: what the vault holds of the run.
        packing: how changes travel.
        seed: the run's; with the round and the user it decides how codes are rounded.
    """

    of_run: OfRun
    packing: Packing
    seed: int

    @classmethod
    def of(cls, of_run: OfRun, shapes: Mapping[str, tuple[int, ...]], settings: Wire) -> OnDevice | None:
        """By the run's settings; None where whole edits travel."""
        if not wire.is_narrow(settings.wire_dtype) or not shapes:
            return None
        deflated = settings.wire_coding == "deflate"
        return cls(of_run, changes.packing(shapes, settings.wire_dtype, deflated=deflated), settings.seed)

    def received(self, user_id: str, packed: NDArray[np.uint8], *, before: str, name: str) -> Tensors:
        """The broadcast edit that a change leads to.

        Args:
            user_id: whose.
            packed: the change, as it travelled.
            before: the fingerprint of the broadcast that it changes.
            name: the fingerprint of the one that it leads to.
        Raises:
            NotHeld: the first is not here, or the change leads from it to another edit.
            ValueError: the bytes are no change.
        """
        change = self.packing.unpack(packed)
        for edit in self.of_run.kept(user_id, BROADCAST):
            if fingerprint(edit) == before:
                moved = changes.applied(edit, change)
                if fingerprint(moved) == name:
                    return moved
        raise NotHeld

    def sent(
        self, user_id: str, start: Mapping[str, Tensor], trained: Mapping[str, Tensor], round_number: int
    ) -> NDArray[np.uint8]:
        """The change of a round as it travels; keeps what it leaves out, and the edit that it is from.

        Args:
            user_id: whose.
            start: the edit that the user was sent.
            trained: what the user made of it; tensors that are not federated may be among them.
            round_number: from 1 on.
        Raises:
            NotFinite: the change is not finite.
            OSError: the vault cannot be written.
        """
        feedback = self.of_run.own(user_id, before_round=round_number, names=FEEDBACK)
        if feedback is not None and {name: tuple(t.shape) for name, t in feedback.items()} != self.packing.shapes:
            feedback = None
        end = {name: trained[name] for name in start}
        draw = generator(self.seed, "wire", round_number, user_id)
        sent = changes.sent(start, end, self.packing, draw, feedback=feedback)
        self.of_run.keep_own(user_id, sent.feedback, round_number, names=FEEDBACK)
        self.of_run.keep_own(user_id, start, round_number, names=BROADCAST)
        return sent.packed
