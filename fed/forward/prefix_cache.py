"""Tokens that the trained edit never touches, read once: their keys and values serve every step of a training.

Where an edit applies at the last tokens of a prompt alone (`l3`, `last`, `answer`), all that stands before them is the
same in every epoch, under the frozen layers of the stack too. The blocks above the first edit keep its keys and
values, and a step computes, forward and backward, only the tokens from the first touched one on.

Shapes:  B rows · P prefix tokens, padded on the left · S the other tokens, padded on the right · d hidden size
         K key heads · e head size
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fed.base.model import BaseModel
from fed.edits.positions import Positions
from fed.edits.stack import EditStack
from fed.forward.activation_cache import resumed
from fed.forward.batching import Batch, Row, pad, under_token_budget

WORTH = 0.25  # of all tokens must be prefix, or reading them apart costs more than it saves


@dataclass(frozen=True)
class Prefix:
    """What a row's first tokens leave behind: for each block above the first edit, keys and values (K, tokens, e)."""

    tokens: int
    blocks: tuple[tuple[Tensor, Tensor], ...]


def lengths(rows: Sequence[Row], trained: Positions) -> list[int]:
    """How many tokens at each row's start the trained edit never touches."""
    return [trained.untouched(len(row.prompt)) for row in rows]


def bytes_of(base: BaseModel, tokens: int, first: int) -> int:
    """What the keys and values of so many tokens take in the blocks above `first`."""
    heads, size = _heads(base)
    return 2 * (base.skeleton.layers - first - 1) * heads * size * tokens * int(base.model.dtype.itemsize)


def worth_it(base: BaseModel, users: Sequence[Sequence[Row]], trained: Positions) -> bool:
    """Whether enough tokens are prefix, and the base keeps every token's keys and values in every block."""
    prefix = sum(sum(lengths(rows, trained)) for rows in users)
    return prefix >= WORTH * sum(len(row) for rows in users for row in rows) and _keeps_all(base)


@torch.no_grad()
def read(
    base: BaseModel, rows: Sequence[Row], stack: EditStack, states: Sequence[Tensor], token_budget: int, user: int = 0
) -> list[Prefix]:
    """The prefixes of one user's rows: the tokens that the stack's last layer never touches, under the frozen layers.

    Args:
        states: of each row, (tokens, d) at the output of the stack's first edited block, where the pass resumes.
        token_budget: padded tokens of one forward pass.
        user: whose rows they are, its number in the stack's banks.
    """
    first, frozen = stack.first_block, stack.frozen
    assert first is not None
    tokens = lengths(rows, stack.trained.positions)
    blocks = range(first + 1, base.skeleton.layers)
    # A row without such tokens leaves nothing behind.
    heads, size = _heads(base)
    nothing = torch.empty(heads, 0, size, dtype=base.model.dtype, device=base.device)
    prefixes = [Prefix(0, tuple((nothing, nothing) for _ in blocks))] * len(rows)
    some = [i for i, count in enumerate(tokens) if count]
    with resumed(base.model, first) as give, frozen.attached(base.model) as attached:
        for part in under_token_budget([tokens[i] for i in some], token_budget):
            places = [some[i] for i in part]
            batch = pad([Row(rows[i].prompt[: tokens[i]], ()) for i in places], base.pad_id, base.device, left=True)
            width = batch.input_ids.shape[1]
            # Where a frozen layer applies is asked of the whole row, of which these tokens are the beginning.
            attached.take([frozen.edits_of(user)] * len(places))
            whole = [row_masks([rows[i] for i in places], layer.positions, base) for layer in frozen.layers]
            attached.at_masks(
                [
                    torch.stack([_left(mask[: tokens[i]], width) for i, mask in zip(places, masks, strict=True)])
                    for masks in whole
                ]
            )
            give(torch.stack([nn.functional.pad(states[i][: tokens[i]], (0, 0, width - tokens[i], 0)) for i in places]))
            cache = _empty_cache(base)
            base.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            kept = [cache.layers[block] for block in blocks]
            for place, i in enumerate(places):
                own = slice(width - tokens[i], width)
                pairs = tuple((one.keys[place, :, own].clone(), one.values[place, :, own].clone()) for one in kept)
                prefixes[i] = Prefix(tokens[i], pairs)
    return prefixes


def rest(base: BaseModel, rows: Sequence[Row], prefixes: Sequence[Prefix], first: int) -> Batch:
    """The rows' other tokens as a batch that goes on from their prefixes; for a pass that resumes at block `first`."""
    cut = [Row(row.prompt[prefix.tokens :], row.completion) for row, prefix in zip(rows, prefixes, strict=True)]
    batch = pad(cut, base.pad_id, base.device)
    counts = torch.tensor([prefix.tokens for prefix in prefixes], device=base.device)
    width = max(prefix.tokens for prefix in prefixes)
    known = torch.arange(width, device=base.device) >= width - counts.unsqueeze(1)
    heads, size = _heads(base)
    cache = _empty_cache(base)
    # The blocks that the pass skips have no keys; the model asks the first of them how many tokens came before.
    blank = torch.zeros((), dtype=base.model.dtype, device=base.device).expand(len(rows), heads, width, size)
    for block in range(first + 1):
        cache.update(blank, blank, block)
    for number, block in enumerate(range(first + 1, base.skeleton.layers)):
        keys, values = (
            torch.stack([nn.functional.pad(p.blocks[number][kind], (0, 0, width - p.tokens, 0)) for p in prefixes])
            for kind in (0, 1)
        )
        cache.update(keys, values, block)
    return Batch(
        batch.input_ids,
        torch.cat([known.long(), batch.attention_mask], dim=1),
        batch.position_ids + counts.unsqueeze(1),
        batch.prompt,
        batch.tokens,
        cache,
    )


def rest_mask(base: BaseModel, rows: Sequence[Row], prefixes: Sequence[Prefix], positions: Positions) -> Tensor:
    """Where an edit applies among the tokens of `rest`: (B, S) bool."""
    masks = row_masks(rows, positions, base)
    own = [mask[prefix.tokens : len(row)] for row, mask, prefix in zip(rows, masks, prefixes, strict=True)]
    return nn.utils.rnn.pad_sequence(own, batch_first=True)


def row_masks(rows: Sequence[Row], positions: Positions, base: BaseModel) -> Tensor:
    """Where an edit applies among the whole rows' tokens, padded on the right: (B, T) bool."""
    batch = pad(rows, base.pad_id, base.device)
    return positions.mask(batch.prompt, batch.tokens)


def _left(mask: Tensor, width: int) -> Tensor:
    return nn.functional.pad(mask, (width - len(mask), 0))


def _heads(base: BaseModel) -> tuple[int, int]:
    """(key heads, numbers of one)."""
    config = base.model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads), int(size)


def _empty_cache(base: BaseModel) -> Any:
    from transformers import DynamicCache  # here: a second that a process which trains otherwise need not spend

    return DynamicCache(config=base.model.config)


def _keeps_all(base: BaseModel) -> bool:
    """No sliding windows, no states of other kinds."""
    from transformers.cache_utils import DynamicLayer

    layers = _empty_cache(base).layers
    return len(layers) == base.skeleton.layers and all(type(layer) is DynamicLayer for layer in layers)
