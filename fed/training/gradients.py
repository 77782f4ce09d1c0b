"""The gradient of every user's minibatch loss, from forward passes that users share.

Shapes:  U users · B rows · T tokens · N completion tokens in a batch · V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.base.model import BaseModel
from fed.edits.hooks import EditSession
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.forward import prefix_cache
from fed.forward.activation_cache import stacked
from fed.forward.batching import Row, pad, to_device, under_token_budget
from fed.forward.completion_loss import Chosen, completion_nll
from fed.forward.prefix_cache import Prefix
from fed.training.plan import TrainSettings


def prefixes_of(
    base: BaseModel,
    rows: Sequence[Sequence[Row]],
    first: int,
    states: Sequence[Sequence[Tensor]] | None,
    settings: TrainSettings,
    positions: Positions,
    frozen: EditBank | None,
    frozen_positions: Positions,
) -> list[list[Prefix]] | None:
    """Every user's rows' prefixes; None where they would not pay, or not fit beside the states."""
    if states is None or not prefix_cache.worth_it(base, rows, positions):
        return None
    tokens = sum(sum(prefix_cache.lengths(own, positions)) for own in rows)
    taken = sum(one.nbytes for own in states for one in own)
    if taken + prefix_cache.bytes_of(base, tokens, first) > settings.activation_cache:
        return None
    return [
        prefix_cache.read(base, own, positions, kept, first, settings.token_budget, frozen, frozen_positions)
        for own, kept in zip(rows, states, strict=True)
    ]


@dataclass(frozen=True)
class KnownRow:
    """A row, and what need not be computed again: its states below the first edit, and its prefix."""

    row: Row
    states: Tensor | None
    prefix: Prefix | None


def accumulate(
    base: BaseModel,
    bank: EditBank,
    chosen: dict[int, list[KnownRow]],
    token_budget: int,
    positions: Sequence[Positions],
    session: EditSession,
    choose: Chosen,
    give: Callable[[Tensor], None] | None,
    first: int,
) -> dict[int, float]:
    """Give the bank the gradient of every user's minibatch loss; returns user -> mean loss over completion tokens.

    Every row has a copy of its user's edit and so a gradient of its own; a user's are added in the order of its own
    minibatch. Whose rows share a batch then decides nothing, not even the order of a sum.

    Args:
        chosen: user -> the rows of its minibatch, each with its states below the first edit (at block `first`) where
        `give` takes them.
    """
    users = sorted(chosen)
    flat = [(user, one) for user in users for one in chosen[user]]
    labels = {user: sum(len(one.row.completion) for one in own) for user, own in chosen.items()}
    sums: dict[int, list[float]] = {user: [] for user in chosen}
    parameters = list(bank.parameters().values())
    gradients = [p.new_zeros(len(flat), *p.shape[1:]) for p in parameters]
    # Of the rows, batch by batch; read when all batches are on their way, for reading waits.
    order: list[int] = []
    losses: list[Tensor] = []
    for places in under_token_budget([len(one.row) for _, one in flat], token_budget):
        owners = [flat[i][0] for i in places]
        rows = [flat[i][1].row for i in places]
        prefixes = [prefix for i in places if (prefix := flat[i][1].prefix) is not None]
        if prefixes:
            batch = prefix_cache.rest(base, rows, prefixes, first)
            masks = [prefix_cache.rest_mask(base, rows, prefixes, p) for p in positions]
        else:
            batch = pad(rows, base.pad_id, base.device)
            masks = [p.mask(batch.prompt, batch.tokens) for p in positions]
        if give is not None:
            starts = [one.tokens for one in prefixes] or [0] * len(places)
            kept = [states for i in places if (states := flat[i][1].states) is not None]
            give(stacked([states[start:] for states, start in zip(kept, starts, strict=True)]))
        own = bank.picked(to_device(torch.tensor(owners), base.device))
        leaves = [p.requires_grad_() for p in own.parameters().values()]
        session.stages[-1].bank = own
        session.set_rows([None] * len(positions), [None] * len(positions))
        session.gather()
        session.set_masks(masks)
        nll, row = completion_nll(base.model, batch, choose)
        weight = to_device(torch.tensor([1.0 / labels[u] for u in owners], dtype=nll.dtype), base.device)
        (nll * weight[row]).sum().backward()
        where = to_device(torch.tensor(places), base.device)
        for gradient, leaf in zip(gradients, leaves, strict=True):
            assert leaf.grad is not None
            gradient[where] = leaf.grad
        order += owners
        losses.append(torch.zeros(len(owners), dtype=nll.dtype, device=base.device).index_add_(0, row, nll.detach()))
    for user, value in zip(order, torch.cat(losses).tolist(), strict=True):
        sums[user].append(value / labels[user])
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = torch.zeros_like(p)
        for user, of_user in zip(users, gradient.split([len(chosen[user]) for user in users]), strict=True):
            p.grad[user] = of_user.sum(0)
    return {user: math.fsum(values) for user, values in sums.items()}
