"""Tokens that the trained edit never touches, read once: their keys and values serve every step of a training.

Where an edit applies at the last tokens of a prompt alone (`l3`, `last`, `answer`), all that stands before them is the
same in every epoch, under the frozen layers of the stack too. The blocks above the first trained one keep its keys
and values, and a step computes, forward and backward, only the tokens from the first touched one on.

Shapes:  B rows · P prefix tokens, padded on the left · S the other tokens, padded on the right · d hidden size
         K, V key and value heads · e, u numbers of a key and of a value (two sizes where attention is latent)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from fed.base.architecture.cache_kinds import empty_cache, with_cache
from fed.base.model import BaseModel
from fed.edits.positions import Positions
from fed.edits.stack import EditStack
from fed.forward.batching import Batch, Row, pad, under_token_budget
from fed.forward.last_logits import last_logits
from fed.forward.resumed import passes
from fed.weak_memory import remembered

WORTH = 0.25  # of all tokens must be prefix, or reading them apart costs more than it saves


@dataclass(frozen=True)
class Prefix:
    """What a row's first tokens leave behind: keys (K, tokens, e) and values (V, tokens, u) of each block above the
    first trained one."""

    tokens: int
    blocks: tuple[tuple[Tensor, Tensor], ...]


def lengths(rows: Sequence[Row], trained: Positions) -> list[int]:
    """How many tokens at each row's start the trained edit never touches."""
    return [trained.untouched(len(row.prompt)) for row in rows]


def bytes_of(base: BaseModel, tokens: int, first: int) -> int:
    """What the keys and values of so many tokens take in the blocks above `first`."""
    numbers = sum(heads * size for block in _shapes(base)[first + 1 :] for heads, size in block)
    return numbers * tokens * int(base.model.dtype.itemsize)


def worth_it(base: BaseModel, users: Sequence[Sequence[Row]], trained: Positions) -> bool:
    """Whether enough tokens are prefix, and the base keeps every token's keys and values in every block."""
    prefix = sum(sum(lengths(rows, trained)) for rows in users)
    return prefix >= WORTH * sum(len(row) for rows in users for row in rows) and base.serves.prefix


@torch.no_grad()
def read(
    base: BaseModel, rows: Sequence[Row], stack: EditStack, states: Sequence[Tensor], token_budget: int, user: int = 0
) -> list[Prefix]:
    """The prefixes of one user's rows: the tokens that the stack's last layer never touches, under the frozen layers.

    Args:
        states: of each row, (tokens, d) at the output of the stack's first trained block, where the pass resumes.
        token_budget: padded tokens of one forward pass.
        user: whose rows they are, its number in the stack's banks.
    """
    first, frozen = stack.first_trained_block, stack.frozen
    tokens = lengths(rows, stack.trained.positions)
    blocks = range(first + 1, base.skeleton.layers)
    # A row without such tokens leaves nothing behind.
    empty = partial(torch.empty, dtype=base.model.dtype, device=base.device)
    nothing = tuple((empty(k, 0, e), empty(v, 0, u)) for (k, e), (v, u) in _shapes(base)[first + 1 :])
    prefixes = [Prefix(0, nothing)] * len(rows)
    some = [i for i, count in enumerate(tokens) if count]
    with passes(base, frozen, first) as (attached, give):
        assert give
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
            cache = empty_cache(base.model)
            last_logits(base.model, batch.input_ids, batch.attention_mask, batch.position_ids, cache)
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
    cache = empty_cache(base.model)
    # The blocks that the pass skips have no keys; the model asks the first of them how many tokens came before.
    blank = torch.zeros((), dtype=base.model.dtype, device=base.device)
    for block, shapes in enumerate(_shapes(base)[: first + 1]):
        keys, values = (blank.expand(len(rows), heads, width, size) for heads, size in shapes)
        cache.update(keys, values, block)
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


@remembered
@torch.no_grad()
def _shapes(base: BaseModel) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Of each block: (key heads, numbers of a key), and the same of values, as the model itself writes them."""
    cache = empty_cache(base.model)
    batch = pad([Row((base.pad_id,), ())], base.pad_id, base.device)
    base.model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        logits_to_keep=1,
        **with_cache(base.model, cache),
    )
    return [((k.shape[1], k.shape[3]), (v.shape[1], v.shape[3])) for k, v in ((o.keys, o.values) for o in cache.layers)]
