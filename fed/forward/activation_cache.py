"""The frozen part below the first trained edit, computed once for each row and reused over epochs, rounds and stages.

What training changes reaches no block before the first trained one, nor that block's own output before it is edited:
for a row these numbers never change, whatever frozen edits lie below. They are kept in the base's dtype, tokens × d
each, as long as they fit the limit. What a row's numbers are must not depend on what happens to be kept, so a user's
rows are always computed together: in batches of that user's rows alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor

from fed.base.model import BaseModel
from fed.edits.stack import BARE, EditStack
from fed.forward.batching import Row
from fed.forward.hidden_states import at_block, returns_states


class ActivationCache:
    """The states of the rows of the users that were used last, up to a limit.

    Deliberately not a cache of single rows: see the top of this file.
    """

    def __init__(self) -> None:
        self._users: OrderedDict[tuple[object, ...], list[Tensor]] = OrderedDict()
        self._bytes = 0

    def clear(self) -> None:
        """Forget everything."""
        self._users.clear()
        self._bytes = 0

    def of(
        self,
        base: BaseModel,
        users: Sequence[Sequence[Row]],
        first: int,
        token_budget: int,
        limit: int,
        stack: EditStack = BARE,
    ) -> list[list[Tensor]] | None:
        """Per user, the states of its rows; None where they may not be used.

        That is where all of them together would take more than `limit` bytes, and where the base's blocks return more
        than hidden states, which `resumed` could not give.

        Args:
            first: the block at whose output passes will resume.
            token_budget: padded tokens of one forward pass.
            stack: its edits of the blocks before `first` lie below the states, as each user takes them.
        """
        below = stack.below(first)
        width = base.skeleton.hidden_size * base.model.dtype.itemsize
        if limit < sum(len(row) for rows in users for row in rows) * width or not returns_states(base, first):
            return None
        found = []
        for user, rows in enumerate(users):
            edits = below.edits_of(user)
            what = (below.content(edits), tuple(rows))
            key = (base.fingerprint, base.dtype, base.device, first, token_budget, *what)
            states = self._users.pop(key, None)
            if states is None:
                states = at_block(base, rows, first, token_budget, stack=below, edits=[edits] * len(rows))
                self._bytes += sum(t.nbytes for t in states)
            self._users[key] = states
            found.append(states)
        while self._bytes > limit:  # those used longest ago; not these, which fit
            _, states = self._users.popitem(last=False)
            self._bytes -= sum(t.nbytes for t in states)
        return found


CACHE = ActivationCache()  # one a process, as the base model is
