"""Losses of given completions with edits of its own for every row; rows of many users and arms share a batch.

Rows of one prompt under the same edits share the pass over the prompt (`fed.answering.shared_prompt`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fed.answering import shared_prompt
from fed.answering.edited_rows import EditedRow
from fed.answering.reader import Loss
from fed.base.model import BaseModel
from fed.edits.stack import Edits, EditStack
from fed.forward.batching import Row, pad, under_token_budget
from fed.forward.budget import Budget
from fed.forward.completion_loss import completion_nll, logits_only_where
from fed.forward.hidden_states import Known
from fed.forward.resumed import passes, stacked
from fed.forward.shared_states import portions


@torch.no_grad()
def losses(
    base: BaseModel,
    rows: Sequence[EditedRow],
    stack: EditStack,
    *,
    budget: Budget | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> list[Loss]:
    """What the completion of each row costs.

    Rows with one prompt and the same edits, such as a query's labels, share the pass over the prompt.

    Args:
        budget: of one forward pass; None: `Budget()`.
        on_rows: called with a number of rows as they finish.
    Raises:
        ValueError: a row that names an edit which the stack has not.
    """
    budget = budget or Budget()
    # Equal rows under the same edits cost the same: each is computed once.
    if len(distinct := list(dict.fromkeys(rows))) < len(rows):
        loss_of_row = dict(zip(distinct, losses(base, distinct, stack, budget=budget, on_rows=on_rows), strict=True))
        if on_rows:
            on_rows(len(rows) - len(distinct))
        return [loss_of_row[row] for row in rows]
    # Rows that share a prompt and edits belong together, where the base's cache can serve them all.
    groups: dict[tuple[tuple[int, ...], Edits], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault((row.row.prompt, row.edits), []).append(place)
    together = [places for places in groups.values() if len(places) > 1 and base.serves.shared_prompt]
    alone = sorted({*range(len(rows))} - {place for places in together for place in places})
    # Those without such company go as whole rows, the others as one prompt and its completions.
    loss_of = dict(zip(alone, _whole(base, [rows[i] for i in alone], stack, budget, on_rows), strict=True))
    shared = _under_one_prompt(base, [[rows[i] for i in places] for places in together], stack, budget.tokens, on_rows)
    for places, group in zip(together, shared, strict=True):
        loss_of |= zip(places, group, strict=True)
    return [loss_of[place] for place in range(len(rows))]


def _whole(
    base: BaseModel,
    rows: Sequence[EditedRow],
    stack: EditStack,
    budget: Budget,
    on_rows: Callable[[int], None] | None,
) -> list[Loss]:
    """Each row in one piece, prompt and completion."""
    # What arms of a row share is computed once, where the budget has room.
    loss_of: dict[int, Loss] = {}
    for portion, known in portions(base, [(row.row, row.edits) for row in rows], stack, budget):
        part = _resumed(base, [rows[i] for i in portion], known, stack, budget.tokens, on_rows)
        loss_of |= zip(portion, part, strict=True)
    return [loss_of[i] for i in range(len(rows))]


def _resumed(
    base: BaseModel,
    rows: Sequence[EditedRow],
    known: Known | None,
    stack: EditStack,
    token_budget: int,
    on_rows: Callable[[int], None] | None,
) -> list[Loss]:
    """Each row from the states that are known of it on."""
    loss_of: dict[int, Loss] = {}
    ends = base.end_ids
    with (
        passes(base, stack, known.block if known else None) as (attached, give),
        logits_only_where(base.model, whole_block=stack.edits_block(base.skeleton.layers - 1)) as choose,
    ):
        for places in under_token_budget([len(row.row) for row in rows], token_budget):
            picked = [rows[i] for i in places]
            batch = pad([row.row for row in picked], base.pad_id, base.device)
            if known and give:
                give(stacked([known.states[i] for i in places]))
            attached.take([row.edits for row in picked])
            attached.at(batch.prompt, batch.tokens)
            nll, row_of = completion_nll(base.model, batch, choose)
            nll, row_of = nll.cpu().double(), row_of.cpu()  # a device may have no float64
            totals = torch.zeros(len(picked), dtype=torch.float64).index_add_(0, row_of, nll)
            last = nll[row_of.bincount(minlength=len(picked)).cumsum(0) - 1]  # rows' tokens stand one after another
            for i, row, total, end in zip(places, picked, totals.tolist(), last.tolist(), strict=True):
                loss_of[i] = Loss.of(total, end, row.row.completion, ends)
            if on_rows:
                on_rows(len(places))
    return [loss_of[i] for i in range(len(rows))]


def _under_one_prompt(
    base: BaseModel,
    groups: Sequence[Sequence[EditedRow]],
    stack: EditStack,
    token_budget: int,
    on_rows: Callable[[int], None] | None,
) -> list[list[Loss]]:
    """Groups of rows of one prompt and the same edits: the prompt is read once for all its completions."""
    return shared_prompt.losses(
        base,
        [EditedRow(Row(group[0].row.prompt, ()), group[0].edits) for group in groups],
        [[row.row.completion for row in group] for group in groups],
        stack,
        token_budget=token_budget,
        on_rows=on_rows,
    )
