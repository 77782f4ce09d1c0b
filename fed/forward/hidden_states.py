"""Hidden states: the output of one decoder block; what lies above it is not computed.

Shapes:  N texts · T tokens · d hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fed.base.model import BaseModel
from fed.edits.hooks import decoder_blocks
from fed.edits.stack import BARE, Edits, EditStack
from fed.forward.batching import Batch, Row, pad, under_token_budget


class _Reached(Exception):
    """The block has been computed."""


@torch.no_grad()
def output_at(base: BaseModel, batch: Batch, layer: int) -> Any:
    """What block `layer` (from 0) returns for a batch: (B, T, d), or a tuple that begins with it in some models."""
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
            use_cache=False,
        )
    except _Reached:
        pass
    finally:
        handle.remove()
    return caught[0]


def at_block(
    base: BaseModel, rows: Sequence[Row], layer: int, token_budget: int, stack: EditStack = BARE, edits: Edits = ()
) -> list[Tensor]:
    """Each row's states, prompt and completion, at the output of a block: (tokens, d) in the base's dtype.

    Args:
        stack: edits of blocks before `layer`, under which the rows are read.
        edits: which of them the rows take.
    """
    with stack.attached(base.model) as attached:

        def enter(batch: Batch) -> None:
            attached.take([edits] * batch.size)
            attached.at(batch.prompt, batch.tokens)

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
    enter: Callable[[Batch], None] = lambda _: None,
) -> Iterator[tuple[int, Tensor]]:
    """(place, the row's states (tokens, d)), batch by batch; a view, so that a batch is let go after its last row.

    Args:
        enter: told of each batch before its pass.
    """
    for places in under_token_budget([len(row) for row in rows], token_budget):
        batch = pad([rows[i] for i in places], base.pad_id, base.device)
        enter(batch)
        output = output_at(base, batch, layer)
        states = output[0] if isinstance(output, tuple) else output
        yield from ((i, of_row[: len(rows[i])]) for i, of_row in zip(places, states, strict=True))
