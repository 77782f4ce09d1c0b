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
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fed import read_prefix
from fed.activations import CACHE, resumed, stacked
from fed.base_model import BaseModel
from fed.batching import Row, minibatches, pad, under_token_budget
from fed.completion_loss import Chosen, completion_nll, logits_only_where
from fed.hooks import EditSession, Stage, edited
from fed.loreft import EditBank
from fed.optimizer import StackedAdamW, axes_of, clip_per_user
from fed.positions import Positions
from fed.read_prefix import Prefix


@dataclass(frozen=True)
class TrainSettings:
    """How one stage trains.

    Attributes:
        rate: peak learning rate. warmup: share of a user's steps with a linearly rising rate, after which
        it falls linearly to zero (OPPU's schedule); `constant` leaves it at the peak. clip: largest norm of
        one user's gradient. weight_decay: decoupled, and of W − R and b, so that it pulls an edit to the
        identity instead of pulling W to zero. proximal_mu: FedProx's pull to where the round started.
        token_budget: padded tokens of one forward pass. activation_cache: bytes that rows' hidden states below the
        first edit may take (see `fed.activations`); 0: they are computed anew in every pass.
    """

    epochs: int
    batch_size: int
    rate: float
    warmup: float = 0.1
    constant: bool = False
    clip: float = 0.3
    weight_decay: float = 0.01
    proximal_mu: float = 0.0
    token_budget: int = 1024
    activation_cache: int = 0

    def rate_at(self, step: int, steps: int) -> float:
        """The rate of a user's step `step` (from 0) of `steps`: a linear warm-up to the peak, then linear to zero.

        As transformers' `linear` schedule, but for the warm-up's first step, which is not wasted on a rate of 0.
        """
        if self.constant:
            return self.rate
        warm = math.ceil(self.warmup * steps)
        if step < warm:
            return self.rate * (step + 1) / (warm + 1)
        return self.rate * (steps - step) / max(steps - warm, 1)


@dataclass
class UserResult:
    """What one user's training did: optimizer steps, rows seen, and the loss of each step."""

    steps: int = 0
    rows: int = 0
    step_losses: list[float] = field(default_factory=list)
    step_weights: list[int] = field(default_factory=list)  # rows of each step
    error: str = ""  # why this user's training stopped early; the others go on

    @property
    def mean_loss(self) -> float:
        """Mean loss over all of the training, its steps weighted by their rows."""
        return math.fsum(w * x for w, x in zip(self.step_weights, self.step_losses, strict=True)) / self.rows

    def epoch_losses(self, epochs: int) -> list[float]:
        """Mean loss of each epoch, its steps weighted by their rows."""
        per_epoch = len(self.step_losses) // max(epochs, 1)
        means = []
        for e in range(epochs if per_epoch else 0):
            span = slice(e * per_epoch, (e + 1) * per_epoch)
            weights = self.step_weights[span]
            losses = self.step_losses[span]
            means.append(math.fsum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights))
        return means


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
    prefixes = _prefixes(base, rows, first, states, settings, positions, frozen, where[0])
    known = [
        [
            _Known(row, states[u][i] if states else None, prefixes[u][i] if prefixes else None)
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
                losses = _accumulate(base, bank, chosen, settings.token_budget, where, session, choose, give, first)
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
                index = torch.tensor(active, device=bank.R.device)
                rates = [settings.rate_at(step, len(plans[u])) for u in active]
                _decay(bank, index, [rate * settings.weight_decay for rate in rates])
                optimizer.step(index, rates)
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
    factor = torch.tensor(amounts, dtype=torch.float64).to(bank.W)
    if not bool((factor != 0).any()):
        return
    R, W, b = bank.R[users], bank.W[users], bank.b[users]
    bank.W[users] = W - factor.view(-1, 1, 1, 1) * (W - R)
    bank.b[users] = b - factor.view(-1, 1, 1) * b


def _prefixes(
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
    if states is None or not read_prefix.worth_it(base, rows, positions):
        return None
    tokens = sum(sum(read_prefix.lengths(own, positions)) for own in rows)
    taken = sum(one.nbytes for own in states for one in own)
    if taken + read_prefix.bytes_of(base, tokens, first) > settings.activation_cache:
        return None
    return [
        read_prefix.read(base, own, positions, kept, first, settings.token_budget, frozen, frozen_positions)
        for own, kept in zip(rows, states, strict=True)
    ]


@dataclass(frozen=True)
class _Known:
    """A row, and what need not be computed again: its states below the first edit, and its prefix."""

    row: Row
    states: Tensor | None
    prefix: Prefix | None


def _accumulate(
    base: BaseModel,
    bank: EditBank,
    chosen: dict[int, list[_Known]],
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
    for places in under_token_budget([len(one.row) for _, one in flat], token_budget):
        owners = [flat[i][0] for i in places]
        rows = [flat[i][1].row for i in places]
        prefixes = [prefix for i in places if (prefix := flat[i][1].prefix) is not None]
        if prefixes:
            batch = read_prefix.rest(base, rows, prefixes, first)
            masks = [read_prefix.rest_mask(base, rows, prefixes, p) for p in positions]
        else:
            batch = pad(rows, base.pad_id, base.device)
            masks = [p.mask(batch.prompt, batch.tokens) for p in positions]
        if give is not None:
            starts = [one.tokens for one in prefixes] or [0] * len(places)
            kept = [states for i in places if (states := flat[i][1].states) is not None]
            give(stacked([states[start:] for states, start in zip(kept, starts, strict=True)]))
        own = bank.picked(torch.tensor(owners, device=base.device))
        leaves = [p.requires_grad_() for p in own.parameters().values()]
        session.stages[-1].bank = own
        session.set_rows([None] * len(positions), [None] * len(positions))
        session.gather()
        session.set_masks(masks)
        nll, row = completion_nll(base.model, batch, choose)
        weight = torch.tensor([1.0 / labels[u] for u in owners], dtype=nll.dtype, device=base.device)
        (nll * weight[row]).sum().backward()
        where = torch.tensor(places, device=base.device)
        for gradient, leaf in zip(gradients, leaves, strict=True):
            assert leaf.grad is not None
            gradient[where] = leaf.grad
        per_row = torch.zeros(len(owners), dtype=nll.dtype, device=base.device).index_add_(0, row, nll.detach())
        for user, value in zip(owners, per_row.tolist(), strict=True):
            sums[user].append(value / labels[user])
    for p, gradient in zip(parameters, gradients, strict=True):
        p.grad = torch.zeros_like(p)
        for user, of_user in zip(users, gradient.split([len(chosen[user]) for user in users]), strict=True):
            p.grad[user] = of_user.sum(0)
    return {user: math.fsum(values) for user, values in sums.items()}
