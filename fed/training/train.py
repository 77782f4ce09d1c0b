"""Local training of one or many users' edits on the frozen base, in shared batches.

Each user's run is what it would be alone: the user's own minibatches, a loss that is the mean over the
completion tokens of that minibatch, the user's own gradient clipping, AdamW state, learning-rate schedule and number
of steps. Users only share forward passes, where every row carries its user's edit. Rows are sorted by length into
batches under a token budget; a minibatch that spans several batches accumulates its gradient.

Shapes:  U users · B rows · T tokens · N completion tokens in a batch · V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from fed.base.model import BaseModel
from fed.edits.hooks import Stage, edited
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.forward.activation_cache import CACHE, resumed
from fed.forward.batching import Row, minibatches, to_device
from fed.forward.completion_loss import logits_only_where
from fed.training.gradients import KnownRow, accumulate, prefixes_of
from fed.training.optimizer import StackedAdamW, axes_of, clip_per_user
from fed.training.plan import TrainSettings, UserResult


def train(
    base: BaseModel,
    bank: EditBank,
    rows: Sequence[Sequence[Row]],
    generators: Sequence[torch.Generator],
    settings: TrainSettings,
    positions: Positions,
    *,
    frozen: EditBank | None = None,
    frozen_positions: Positions | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> list[UserResult]:
    """Train every user's edit in `bank`, in place.

    Args:
        bank: one edit per user, on the base model's device. rows: the users' rows, in the bank's order.
        generators: one per user; draws that user's minibatches.
        frozen: an edit shared by all rows that comes first and does not train (the collective one, in stage 2).
        frozen_positions: where that one applies; None: at `positions` too.
        on_step: called after each optimizer step with (step, steps, mean loss over the users in it).

    Returns:
        one result per user.
    Raises:
        ValueError: a user without rows. A user whose loss is not finite (the rate is too large for the
        base) does not raise: it stops training, and its result says so.
    """
    if not len(rows) == len(generators) == bank.users:
        raise ValueError(f"{bank.users} edits need as many row lists and generators")
    for user, own in enumerate(rows):
        if not own:
            raise ValueError(f"user number {user} has no rows to train on")
    plans = [
        minibatches(len(own), settings.batch_size, settings.epochs, g) for own, g in zip(rows, generators, strict=True)
    ]
    parameters = list(bank.parameters().values())
    start = [p.detach().clone() for p in parameters] if settings.proximal_mu else []
    optimizer = StackedAdamW(parameters, bank.users, [axes_of(bank.R), None, None])
    results = [UserResult() for _ in rows]
    stages = ([Stage(frozen)] if frozen is not None else []) + [Stage(bank, each=True)]
    where = [frozen_positions or positions, positions][-len(stages) :]
    steps = max(len(plan) for plan in plans)
    first = min(layer for stage in stages for layer in stage.bank.shape.layers)
    states = CACHE.of(base, rows, first, settings.token_budget, settings.activation_cache)
    prefixes = prefixes_of(base, rows, first, states, settings, positions, frozen, where[0])
    known = [
        [
            KnownRow(row, states[u][i] if states else None, prefixes[u][i] if prefixes else None)
            for i, row in enumerate(own)
        ]
        for u, own in enumerate(rows)
    ]
    try:
        with (
            resumed(base.model, first) if states else nullcontext() as give,
            edited(base.model, stages) as session,
            logits_only_where(base.model) as choose,
        ):
            for step in range(steps):
                active = [u for u, plan in enumerate(plans) if step < len(plan) and not results[u].error]
                chosen = {u: [known[u][i] for i in plans[u][step]] for u in active}
                losses = accumulate(base, bank, chosen, settings.token_budget, where, session, choose, give, first)
                for u in active:
                    if not math.isfinite(losses[u]):
                        results[u].error = (
                            f"the loss is {losses[u]} at step {step + 1}: "
                            f"a learning rate of {settings.rate} is too large for this base model"
                        )
                active = [u for u in active if not results[u].error]
                if not active:
                    break
                if settings.proximal_mu:
                    for p, p0 in zip(parameters, start, strict=True):
                        p.grad.add_(p - p0, alpha=settings.proximal_mu)  # type: ignore[union-attr]
                clip_per_user(parameters, settings.clip)
                on_host = torch.tensor(active)
                index = to_device(on_host, bank.R.device)
                rates = [settings.rate_at(step, len(plans[u])) for u in active]
                _decay(bank, index, [rate * settings.weight_decay for rate in rates])
                optimizer.step(on_host, rates)
                bank.retract_(index)
                for u in active:
                    results[u].steps += 1
                    results[u].rows += len(chosen[u])
                    results[u].step_losses.append(losses[u])
                    results[u].step_weights.append(len(chosen[u]))
                if on_step:
                    on_step(step + 1, steps, math.fsum(losses[u] for u in active) / len(active))
    finally:
        for p in parameters:
            p.grad = None
    for u, result in enumerate(results):
        if not result.error and not all(bool(p[u].isfinite().all()) for p in parameters):
            result.error = f"its last step is not finite: a learning rate of {settings.rate} is too large"
    return results


@torch.no_grad()
def _decay(bank: EditBank, users: Tensor, amounts: Sequence[float]) -> None:
    """Pull W towards R and b towards zero: the identity edit, not the edit that deletes a subspace."""
    if not any(amounts):
        return
    factor = torch.tensor(amounts, dtype=torch.float64).to(bank.W)
    R, W, b = bank.R[users], bank.W[users], bank.b[users]
    bank.W[users] = W - factor.view(-1, 1, 1, 1) * (W - R)
    bank.b[users] = b - factor.view(-1, 1, 1) * b
