"""Local training of one or many users' edits on the frozen base, in shared batches.

Each user's run is what it would be alone: the user's own minibatches, a loss that is the mean over the
completion tokens of that minibatch, the user's own gradient clipping, AdamW state, learning-rate schedule and number
of steps. Users only share forward passes, where every row carries its user's edit. Rows are sorted by length into
batches under a token budget; a minibatch that spans several batches accumulates its gradient.

Promise: a user gets the same edit whoever trains beside it
(`tests/fed/training/test_train.py: test_many_users_in_one_batch_get_what_each_gets_alone`).

Shapes:  U users · B rows · T tokens · N completion tokens in a batch · V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fed.base.model import BaseModel
from fed.edits.loreft import EditBank
from fed.edits.stack import EditStack
from fed.forward.batching import Row, minibatches, to_device
from fed.training.gradients import known_rows, shared_passes
from fed.training.optimizer import StackedAdamW, axes_of, clip_per_user
from fed.training.plan import TrainSettings, UserResult


def train(
    base: BaseModel,
    stack: EditStack,
    rows: Sequence[Sequence[Row]],
    generators: Sequence[torch.Generator],
    settings: TrainSettings,
    *,
    on_step: Callable[[int, int, float], None] | None = None,
) -> list[UserResult]:
    """Train every user's edit in the stack's last layer, in place; the layers before it stay as they are.

    Args:
        stack: on the base's device. Its last layer has one edit a user; one before it is shared, or has one too.
        rows: each user's, in the order of the stack's edits.
        generators: one a user; draws that user's minibatches.
        on_step: called after each optimizer step with (step, steps, mean loss over the users in it).
    Returns:
        one result per user.
    Raises:
        ValueError: a user without rows. A user whose loss is not finite (the rate is too large for the
        base) does not raise: it stops training, and its result says so.
    """
    check_users(stack, rows, generators)
    # Plan every user's steps; each optimizer begins at zero.
    plans = [
        minibatches(len(own), settings.batch_size, settings.epochs, g) for own, g in zip(rows, generators, strict=True)
    ]
    steps = max(len(plan) for plan in plans)
    results = [UserResult() for _ in rows]
    update = _Update(stack.trained.bank, settings)
    # What no step changes is computed once.
    known = known_rows(base, rows, stack, settings)
    states_known = known[0][0].states is not None
    try:
        with shared_passes(base, stack, settings.token_budget, states_known=states_known) as passes:
            for step in range(steps):
                # The minibatches of those whose plan goes on, and their gradients.
                active = [u for u, plan in enumerate(plans) if step < len(plan) and not results[u].error]
                if not active:
                    break
                losses = passes.accumulate({u: [known[u][i] for i in plans[u][step]] for u in active})
                # A user whose loss is not finite stops here; the others take their step.
                for u in active:
                    if not math.isfinite(losses[u]):
                        results[u].error = settings.not_finite(losses[u], step)
                active = [u for u in active if not results[u].error]
                if not active:
                    break
                update.step(active, [settings.rate_at(step, len(plans[u])) for u in active])
                # What it did goes into their results.
                for u in active:
                    results[u].add_step(losses[u], len(plans[u][step]))
                if on_step:
                    on_step(step + 1, steps, math.fsum(losses[u] for u in active) / len(active))
    finally:
        update.forget_gradients()
    for u, result in enumerate(results):
        if not result.error and not update.is_finite(u):
            result.error = settings.last_step_not_finite()
    return results


def check_users(stack: EditStack, rows: Sequence[Sequence[Row]], generators: Sequence[torch.Generator]) -> None:
    """Raise ValueError where edits, rows and generators do not pair up, or a user has no rows."""
    if not stack.layers:
        raise ValueError("training needs a stack with a layer to train, got one without layers")
    for layer in stack.layers:
        if (layer is stack.trained or not layer.shared) and not len(rows) == len(generators) == layer.bank.users:
            raise ValueError(
                f"{layer.bank.users} edits need as many row lists and generators, got {len(rows)} and {len(generators)}"
            )
    for user, own in enumerate(rows):
        if not own:
            raise ValueError(f"user number {user} has no rows to train on")


class _Update:
    """The step of every user's edit, each user's as if it were alone."""

    def __init__(self, bank: EditBank, settings: TrainSettings) -> None:
        self._bank, self._settings = bank, settings
        self._parameters = list(bank.parameters().values())
        self._start = [p.detach().clone() for p in self._parameters] if settings.proximal_mu else []
        self._optimizer = StackedAdamW(self._parameters, bank.users, [axes_of(bank.R), None, None])

    def step(self, users: Sequence[int], rates: Sequence[float]) -> None:
        """One step of these users' edits, each at its own rate, from the gradients that the bank holds."""
        settings = self._settings
        self._leave_alone()
        # FedProx pulls the gradient to where the round started; then each user's is clipped.
        if settings.proximal_mu:
            for p, p0 in zip(self._parameters, self._start, strict=True):
                p.grad.add_(p - p0, alpha=settings.proximal_mu)  # type: ignore[union-attr]
        clip_per_user(self._parameters, settings.clip)
        # Decay, AdamW, and R back on its manifold.
        on_host = torch.tensor(users)
        index = to_device(on_host, self._bank.R.device)
        _decay(self._bank, index, [rate * settings.weight_decay for rate in rates], settings.trained_rows or None)
        self._optimizer.step(on_host, rates)
        if not settings.frozen_R:
            self._bank.retract_(index, settings.trained_rows or None)

    def _leave_alone(self) -> None:
        """Take the gradient from what is not trained: AdamW's step of what never had one is an exact zero."""
        if self._settings.frozen_R:
            self._bank.R.grad.zero_()  # type: ignore[union-attr]
        if rows := self._settings.trained_rows:
            for p in self._parameters:
                p.grad[:, :, rows:] = 0  # type: ignore[index]

    def is_finite(self, user: int) -> bool:
        """Whether every number of this user's edit is."""
        return all(bool(p[user].isfinite().all()) for p in self._parameters)

    def forget_gradients(self) -> None:
        """Leave the bank without any."""
        for p in self._parameters:
            p.grad = None


@torch.no_grad()
def _decay(bank: EditBank, users: Tensor, amounts: Sequence[float], rows: int | None = None) -> None:
    """Pull W towards R and b towards zero: the identity edit, not the edit that deletes a subspace.

    Args:
        rows: the first rows of every layer alone; None: all.
    """
    if not any(amounts):
        return
    factor = torch.tensor(amounts, dtype=torch.float64).to(bank.W.dtype).to(bank.W.device)
    R, W, b = bank.R[users, :, :rows], bank.W[users, :, :rows], bank.b[users, :, :rows]
    bank.W[users, :, :rows] = W - factor.view(-1, 1, 1, 1) * (W - R)
    bank.b[users, :, :rows] = b - factor.view(-1, 1, 1) * b
