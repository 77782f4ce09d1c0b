"""Losses of given completions with one edit per row; rows of many users and of several arms share a batch.

Rows of one prompt under one pair of edits share the pass over the prompt (`fed.answering.shared_prompt`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from fed.answering import shared_prompt
from fed.answering.edited_rows import EditedRow, open_session, positions_of, set_rows
from fed.base.model import BaseModel
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.forward.activation_cache import ActivationCache, resumed, stacked
from fed.forward.batching import pad, under_token_budget
from fed.forward.completion_loss import completion_nll, logits_only_where


@torch.no_grad()
def losses(
    base: BaseModel,
    rows: Sequence[EditedRow],
    positions: Positions,
    *,
    collective: EditBank | None = None,
    personal: EditBank | None = None,
    personal_positions: Positions | None = None,
    token_budget: int = 2048,
    activation_cache: int = 0,
    on_rows: Callable[[int], None] | None = None,
) -> list[tuple[float, int]]:
    """(summed negative log-likelihood of the completion in nats, its tokens) for each row, EOS included.

    Rows with one prompt and one pair of edits, such as a query's labels, share the pass over the prompt.
    `personal_positions`: where the personalized edits apply; None: at `positions`, as the collective one.
    `activation_cache`: bytes for rows' states below the first edit, which a row's arms then share.
    """
    where = positions_of(positions, personal_positions, collective, personal)
    groups: dict[tuple[tuple[int, ...], bool, int | None], list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault((row.row.prompt, row.collective, row.personal), []).append(i)
    shared = [places for places in groups.values() if len(places) > 1]
    alone = [places[0] for places in groups.values() if len(places) == 1]
    found: dict[int, tuple[float, int]] = {}
    first = min((layer for bank in (collective, personal) if bank for layer in bank.shape.layers), default=None)
    distinct = list(dict.fromkeys(rows[i].row for i in alone))
    kept = None
    if first is not None:
        kept = ActivationCache().of(base, [distinct], first, token_budget, activation_cache)
    states = dict(zip(distinct, kept[0], strict=True)) if kept else {}
    with (
        resumed(base.model, first) if kept and first is not None else nullcontext() as give,
        open_session(base, collective, personal) as session,
        logits_only_where(base.model) as choose,
    ):
        for part in under_token_budget([len(rows[i].row) for i in alone], token_budget):
            chosen = [rows[alone[i]] for i in part]
            batch = pad([row.row for row in chosen], base.pad_id, base.device)
            if give is not None:
                give(stacked([states[row.row] for row in chosen]))
            set_rows(session, chosen, collective is not None, personal is not None, base.device)
            session.set_masks([p.mask(batch.prompt, batch.tokens) for p in where])
            nll, row_of = completion_nll(base.model, batch, choose)
            sums = torch.zeros(len(chosen), dtype=torch.float64).index_add_(0, row_of.cpu(), nll.double().cpu())
            for i, row, value in zip(part, chosen, sums.tolist(), strict=True):
                found[alone[i]] = (value, len(row.row.completion))
            if on_rows:
                on_rows(len(part))
    with open_session(base, collective, personal) as session:

        def enter(numbers: Sequence[int], prompt: Tensor, tokens: Tensor) -> None:
            reading = [rows[shared[number][0]] for number in numbers]
            set_rows(session, reading, collective is not None, personal is not None, base.device)
            session.set_masks([p.mask(prompt, tokens) for p in where])

        together = shared_prompt.losses(
            base,
            [rows[places[0]].row.prompt for places in shared],
            [[rows[i].row.completion for i in places] for places in shared],
            enter,
            token_budget=token_budget,
            on_rows=on_rows,
        )
    for places, values in zip(shared, together, strict=True):
        found |= zip(places, values, strict=True)
    return [found[i] for i in range(len(rows))]
