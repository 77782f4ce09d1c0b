"""The pass over prompts that decoding begins with: keys and values of every row, and the logits of its next token.

Rows of one prompt that differ in their edits share it as far as they are one (`fed.forward.shared_states` says how
far): each block where a layer's edits begin is reached once for each kind of row, and its keys and values are then
copied to the rows. That is done where the base's cache keeps every token's keys and values in every block, as read.

Promise: what a row gets is that of a pass of its own, up to rounding
(`tests/fed/answering/test_first_pass.py: test_the_shared_pass_gives_what_a_pass_for_each_row_gives`).

Shapes:  B rows · T tokens · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fed.base.architecture.cache_kinds import empty_cache
from fed.base.model import BaseModel
from fed.edits.stack import AttachedStack, Edits, EditStack
from fed.forward.batching import Batch
from fed.forward.hidden_states import output_at, returns_states
from fed.forward.last_logits import last_logits
from fed.forward.resumed import passes


def first_pass(base: BaseModel, batch: Batch, edits: Sequence[Edits], stack: EditStack) -> tuple[Tensor, Any]:
    """Read prompts, padded on the left, under each row's edits.

    Args:
        batch: of prompts alone.
        edits: of each row.
        stack: not attached.
    Returns:
        (logits (B, V) after each prompt's last token; the cache of all blocks, None where the base's serves no steps).
    """
    cache: Any = empty_cache(base.model) if base.serves.steps else None
    block, states = None, None
    for next_block in _shared_blocks(base, batch, edits, stack):
        # One row of each kind that there is below this block, and of which kind every row is.
        kinds = [(*ids, *stack.edits_below(own, next_block)) for ids, own in zip(_texts(batch), edits, strict=True)]
        place_of = {kind: place for place, kind in enumerate(kinds)}
        number_of = {kind: number for number, kind in enumerate(place_of)}
        picked = torch.tensor(list(place_of.values()), device=base.device)
        spread = torch.tensor([number_of[kind] for kind in kinds], device=base.device)
        few, below, part_cache = _rows(batch, picked), stack.below(next_block), empty_cache(base.model)
        with passes(base, below, block) as (attached, give):
            _enter(attached, few, [edits[place] for place in place_of.values()])
            if give and states is not None:
                give(states[picked])
            states = output_at(base, few, next_block, part_cache)[spread]
        for number in range(0 if block is None else block + 1, next_block + 1):
            part_cache.layers[number].batch_select_indices(spread)
            cache.layers[number] = part_cache.layers[number]
        block = next_block
    # What lies above: every row for itself.
    own_cache = cache if block is None else empty_cache(base.model)
    with passes(base, stack, block) as (attached, give):
        _enter(attached, batch, edits)
        if give and states is not None:
            give(states)
        logits = last_logits(base.model, batch.input_ids, batch.attention_mask, batch.position_ids, own_cache)
    if block is not None:
        for number in range(block + 1, base.skeleton.layers):
            cache.layers[number] = own_cache.layers[number]
    return logits, cache


def _shared_blocks(base: BaseModel, batch: Batch, edits: Sequence[Edits], stack: EditStack) -> tuple[int, ...]:
    """The blocks where a layer begins, where rows of the batch are one up to the first of them; else ()."""
    blocks = stack.first_blocks
    if not blocks or not base.serves.prefix or len(set(_texts(batch))) == batch.size:
        return ()
    return blocks if all(returns_states(base, block) for block in blocks) else ()


def _texts(batch: Batch) -> list[tuple[int, ...]]:
    """Each row's tokens and where they begin, in a form to compare."""
    return [
        (int(mask.sum()), *ids) for ids, mask in zip(batch.input_ids.tolist(), batch.attention_mask.cpu(), strict=True)
    ]


def _rows(batch: Batch, picked: Tensor) -> Batch:
    """These rows of a batch."""
    return replace(
        batch,
        input_ids=batch.input_ids[picked],
        attention_mask=batch.attention_mask[picked],
        position_ids=batch.position_ids[picked],
        prompt=batch.prompt[picked],
        tokens=batch.tokens[picked],
    )


def _enter(attached: AttachedStack, batch: Batch, edits: Sequence[Edits]) -> None:
    attached.take(edits)
    attached.at(batch.prompt, batch.tokens)
