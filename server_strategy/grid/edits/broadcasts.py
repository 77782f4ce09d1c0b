"""The edits that the server broadcasts on a narrow wire: as changes to those who have the one before, else whole.

    b₁ = x₁      e₁ = 0      b_t = b_{t−1} + unpack(pack(x_t − b_{t−1} + e_{t−1}))      e_t = what that leaves out

x_t is the edit that a round would start from, b_t what it starts from: what users train from, what their replies are
changes of, and what the strategy steps from. Server and users reckon b_t by the same additions, and both name it by its
fingerprint, so that what one has is bit for bit what the other means.

A user is sent the change where its last valid reply was to b_{t−1}; the whole b_t, in float32, where it joined late,
missed a round or has lost it. An edit of its own (`rounds.own_edits`) travels whole. The hand-out is a broadcast too.

R stays near orthonormal rows only as long as a change is rounded finely enough: where b_t would be further from them
than x_t is by more than `OFF_THE_MANIFOLD`, x_t itself is broadcast, whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fed.communication import changes
from fed.edits import stiefel
from fed.methods.method import Tensors
from fed.privacy.tensor_files import fingerprint
from fed.randomness import generator
from server_strategy.grid.edits.translation import Translation

OFF_THE_MANIFOLD = 0.01  # of |R Rᵀ − I|; a strict device takes no edit past 0.05 (`fed.policy`)


@dataclass(frozen=True)
class Broadcast:
    """One broadcast edit.

    Attributes:
        name: its fingerprint.
        before: the name of the one that `change` is from; "" where there is no change.
        arrays: the edit as strategies see it.
        change: the records that the change travels as.
    """

    name: str
    before: str
    arrays: ArrayRecord
    change: RecordDict


class Broadcasts:
    """A run's broadcasts, one after the other, and who has the last.

    Promise: a run that is gone on with broadcasts the same bytes to the same users
    (tests/integration/test_narrow_wire.py).

    Args:
        translation: how edits travel; its wire is narrow.
        seed: the run's; with the round it decides how codes are rounded.

    Attributes:
        state: what a checkpoint keeps: the last broadcast `edit`, the `feedback`, and `holders`, user -> name.
    """

    def __init__(self, translation: Translation, seed: int) -> None:
        self._translation, self._seed = translation, seed
        self.state: dict[str, Any] = {"edit": {}, "feedback": {}, "holders": {}}
        self._now: Broadcast | None = None

    def next(self, number: int, arrays: ArrayRecord) -> ArrayRecord:
        """What round `number` starts from, as strategies see it.

        Args:
            number: from 1 on; the hand-out is one more than the last round.
            arrays: what it would start from.
        """
        wanted, last = self._translation.from_record(arrays), self.state["edit"]
        edit, feedback, before, change = wanted, {}, "", RecordDict()
        if last:
            packing = self._translation.packing
            assert packing is not None
            draw = generator(self._seed, "broadcast", number)
            sent = changes.sent(last, wanted, packing, draw, feedback=self.state["feedback"] or None)
            rounded = changes.applied(last, sent.change)
            if _off_the_manifold(rounded) <= _off_the_manifold(wanted) + OFF_THE_MANIFOLD:
                edit, feedback, before = rounded, sent.feedback, fingerprint(last)
                names = ConfigRecord({"from": before, "to": fingerprint(edit)})
                change = RecordDict({"arrays": ArrayRecord({"change": Array(sent.packed)}), "change": names})
        self.state = {"edit": edit, "feedback": feedback, "holders": self.state["holders"]}
        self._now = Broadcast(fingerprint(edit), before, self._translation.to_record(edit), change)
        return self._now.arrays

    def is_now(self, arrays: ArrayRecord | None) -> bool:
        """Whether these are the arrays of the present broadcast, and not a user's own."""
        return self._now is not None and arrays is self._now.arrays

    def change_for(self, user: str) -> RecordDict | None:
        """The records of the present broadcast's change; None for a user who needs the whole edit."""
        if self._now is None or not self._now.before or self.state["holders"].get(user) != self._now.before:
            return None
        return self._now.change

    def took(self, user: str) -> None:
        """The user has answered the present broadcast, and has it."""
        assert self._now is not None
        self.state["holders"][user] = self._now.name

    def lost(self, user: str) -> None:
        """The user has no broadcast any more."""
        self.state["holders"].pop(user, None)


def _off_the_manifold(edit: Tensors) -> float:
    return stiefel.orthogonality_error(edit["R"]) if "R" in edit else 0.0
