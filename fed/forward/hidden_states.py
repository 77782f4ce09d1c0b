"""Hidden states: the output of one decoder block; what lies above it is not computed.

Shapes:  N texts · T tokens · d hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fed.base.architecture.cache_kinds import with_cache
from fed.base.model import BaseModel
from fed.edits.hooks import decoder_blocks
from fed.edits.stack import BARE, Edits, EditStack
from fed.forward.batching import Batch, Row, pad, under_token_budget
from fed.forward.resumed import passes, stacked
from fed.weak_memory import remembered


class _Reached(Exception):
    """The block has been computed."""


@torch.no_grad()
def output_at(base: BaseModel, batch: Batch, layer: int, cache: Any = None) -> Any:
    """What block `layer` (from 0) returns for a batch: (B, T, d), or a tuple that begins with it in some models.

    Args:
        cache: takes the keys and values of the blocks that are computed; None: they are not kept.
    """
    caught: list[Any] = []

    def catch(_module: Any, _inputs: Any, output: Any) -> None:
        caught.append(output)
        raise _Reached

    handle = decoder_blocks(base.model)[layer].register_forward_hook(catch)
    try:
        base.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            **with_cache(base.model, cache),
        )
    except _Reached:
        pass
    finally:
        handle.remove()
    return caught[0]


@remembered
def returns_states(base: BaseModel, layer: int) -> bool:
    """Whether a block returns hidden states and nothing else, as a pass that resumes at its output can give."""
    return isinstance(output_at(base, pad([Row((base.pad_id,), ())], base.pad_id, base.device), layer), Tensor)


@dataclass(frozen=True)
class Known:
    """Rows' states at a block's output, at which a pass can resume: (tokens, d) each."""

    block: int
    states: Sequence[Tensor]


def at_block(
    base: BaseModel,
    rows: Sequence[Row],
    layer: int,
    token_budget: int,
    *,
    stack: EditStack = BARE,
    edits: Sequence[Edits] | None = None,
    known: Known | None = None,
) -> list[Tensor]:
    """Each row's states, prompt and completion, at the output of a block: (tokens, d) in the base's dtype.

    Args:
        stack: edits of blocks before `layer`, under which the rows are read.
        edits: which of them each row takes; None: none.
        known: the rows' states further below, where passes resume; None: they begin at the embeddings.
    """
    edits = edits or [()] * len(rows)
    with passes(base, stack, known.block if known else None) as (attached, give):

        def enter(places: Sequence[int], batch: Batch) -> None:
            attached.take([edits[i] for i in places])
            attached.at(batch.prompt, batch.tokens)
            if known and give:
                give(stacked([known.states[i] for i in places]))

        states = {i: of_row.clone() for i, of_row in _row_by_row(base, rows, layer, token_budget, enter)}
    return [states[i] for i in range(len(rows))]


def last_token(base: BaseModel, texts: Sequence[Sequence[int]], layer: int, *, token_budget: int = 2048) -> Tensor:
    """h_ℓ(text) at the last token of each text, token ids, at least one each: (N, d) in the base's dtype."""
    rows = [Row(tuple(text), ()) for text in texts]
    last = {i: of_row[-1].clone() for i, of_row in _row_by_row(base, rows, layer, token_budget)}
    return torch.stack([last[i] for i in range(len(rows))])


def _row_by_row(
    base: BaseModel,
    rows: Sequence[Row],
    layer: int,
    token_budget: int,
    enter: Callable[[Sequence[int], Batch], None] = lambda *_: None,
) -> Iterator[tuple[int, Tensor]]:
    """(place, the row's states (tokens, d)), batch by batch; a view, so that a batch is let go after its last row.

    Args:
        enter: told of each batch before its pass: which rows it has, and the batch.
    """
    for places in under_token_budget([len(row) for row in rows], token_budget):
        batch = pad([rows[i] for i in places], base.pad_id, base.device)
        enter(places, batch)
        output = output_at(base, batch, layer)
        states = output[0] if isinstance(output, tuple) else output
        yield from ((i, of_row[: len(rows[i])]) for i, of_row in zip(places, states, strict=True))
