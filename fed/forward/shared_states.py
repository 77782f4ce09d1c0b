"""States that several arms of a row share, computed once: below the first edit of all, and below each layer's first.

Arms of a row differ in which edits they take. Below the first block that any layer edits they are one; below the first
block of a later layer (of private edits that begin above the collective ones) those are one that differ in this layer
alone. So each block where a layer begins is reached once for each kind of row that there is up to it, from the states
of the block before, and only what lies above the last such block is computed for every arm.

    collective edits from block 10, private ones from 16, of 30:   11 · 1  +  6 · 2  +  13 · 4  block passes, not 30 · 4

Shapes:  T tokens · d hidden size
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fed.base.model import BaseModel
from fed.edits.stack import Edits, EditStack
from fed.forward.batching import Row
from fed.forward.budget import Budget
from fed.forward.hidden_states import Known, at_block, returns_states

Arm = tuple[Row, Edits]


def portions(
    base: BaseModel, arms: Sequence[Arm], stack: EditStack, budget: Budget
) -> Iterator[tuple[list[int], Known | None]]:
    """The arms' places, with their states where the last layer begins: as many at a time as the budget has room for.

    All arms of a row are in one portion. Those of rows too large for the budget come last, in one portion without
    states, and so do all where the base's blocks return more than hidden states, or nothing is edited.
    """
    blocks = stack.first_blocks
    usable = bool(blocks) and all(returns_states(base, block) for block in blocks)
    width = base.skeleton.hidden_size * int(base.model.dtype.itemsize)
    places_of: dict[Row, list[int]] = {}
    for place, (row, _) in enumerate(arms):
        places_of.setdefault(row, []).append(place)
    portion: list[int] = []
    whole: list[int] = []
    taken = 0
    for row, places in places_of.items():
        kinds = sum(len({stack.edits_below(arms[i][1], block) for i in places}) for block in blocks)
        size = kinds * len(row) * width
        if not usable or size > budget.activation_cache:
            whole += places
            continue
        if taken + size > budget.activation_cache:
            yield portion, _states(base, [arms[i] for i in portion], stack, budget.tokens)
            portion, taken = [], 0
        portion, taken = portion + places, taken + size
    if portion:
        yield portion, _states(base, [arms[i] for i in portion], stack, budget.tokens)
    if whole:
        yield whole, None


def _states(base: BaseModel, arms: Sequence[Arm], stack: EditStack, token_budget: int) -> Known:
    """Every arm's states at the output of the block where the stack's last layer begins."""
    known: Known | None = None
    for block in stack.first_blocks:
        kinds = [(row, stack.edits_below(edits, block)) for row, edits in arms]
        place_of = {kind: place for place, kind in enumerate(kinds)}
        states = at_block(
            base,
            [row for row, _ in place_of],
            block,
            token_budget,
            stack=stack.below(block),
            edits=[edits for _, edits in place_of],
            known=known and Known(known.block, [known.states[place] for place in place_of.values()]),
        )
        state_of = dict(zip(place_of, states, strict=True))
        known = Known(block, [state_of[kind] for kind in kinds])
    assert known
    return known
