"""One user's local training by torch's own AdamW: the loop of the engines that train users one after the other.

The same plan as `fed.training.train.train`, which trains many at once: the user's minibatches, mean loss over
completion tokens, clipping, schedule, FedProx. What a step computes is the engine's affair (pyreft's interventions,
PEFT's adapters).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fed.base.model import BaseModel
from fed.forward.batching import Batch, Row, minibatches, pad, under_token_budget
from fed.training.plan import TrainSettings, UserResult


def fit(
    rows: Sequence[Row],
    generator: torch.Generator,
    settings: TrainSettings,
    optimizer: torch.optim.Optimizer,
    accumulate: Callable[[Sequence[Row]], float],
    proximal: Callable[[], Tensor],
    on_step: Callable[[int, int, float], None] | None = None,
) -> UserResult:
    """Run the user's whole plan; what `optimizer` holds changes in place.

    Args:
        optimizer: each group may have a `share`, its part of the learning rate (1 where absent).
        accumulate: adds the gradient of a minibatch's mean loss and returns that loss.
        proximal: ‖now − start‖², differentiable; asked for where proximal_mu > 0 alone.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    plan = minibatches(len(rows), settings.batch_size, settings.epochs, generator)
    result = UserResult()
    for step, picked in enumerate(plan):
        loss = accumulate([rows[i] for i in picked])
        if not math.isfinite(loss):
            result.error = settings.not_finite(loss, step)
            break
        if settings.proximal_mu:
            (0.5 * settings.proximal_mu * proximal()).backward()
        if settings.clip > 0:
            nn.utils.clip_grad_norm_(parameters, settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = group.get("share", 1.0) * settings.rate_at(step, len(plan))
        optimizer.step()
        optimizer.zero_grad()
        result.add_step(loss, len(picked))
        if on_step:
            on_step(step + 1, len(plan), loss)
    if not result.error and not all(bool(p.isfinite().all()) for p in parameters):
        result.error = settings.last_step_not_finite()
    return result


def accumulate(base: BaseModel, rows: Sequence[Row], token_budget: int, summed_nll: Callable[[Batch], Tensor]) -> float:
    """Add the gradient of a minibatch's loss, in batches under a token budget; returns its mean over completion tokens.

    Args:
        summed_nll: of a batch padded on the right, the completions' negative log-likelihood, summed.
    """
    labels = sum(len(row.completion) for row in rows)
    sums = []
    for picked in under_token_budget([len(row) for row in rows], token_budget):
        nll = summed_nll(pad([rows[i] for i in picked], base.pad_id, base.device))
        (nll / labels).backward()
        sums.append(float(nll.detach()) / labels)
    return math.fsum(sums)
