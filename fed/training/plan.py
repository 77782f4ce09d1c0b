"""How one stage trains a user, and what one user's training did."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrainSettings:
    """How one stage trains.

    Attributes:
        epochs: passes over a user's rows.
        batch_size: rows of one step.
        rate: peak learning rate.
        warmup: share of a user's steps with a linearly rising rate, after which it falls linearly to zero (OPPU's).
        constant: leave the rate at its peak, without a warm-up.
        clip: largest norm of one user's gradient; 0 leaves it.
        weight_decay: decoupled, and of W − R and b: it pulls an edit to the identity instead of pulling W to zero.
        proximal_mu: FedProx's pull to where the round started.
        token_budget: padded tokens of one forward pass.
        frozen_R: R stays as it is: not stepped, not retracted.
        trained_rows: the first rows of every layer's R, W and b are trained and the others left alone; 0: all are.
        activation_cache: bytes that rows' hidden states below the first trained edit may take
        (`fed.forward.activation_cache`); 0: they are computed anew in every pass.
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
    frozen_R: bool = False
    trained_rows: int = 0
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

    def not_finite(self, loss: float, step: int) -> str:
        """Why a user stops whose loss at step `step` (from 0) is not finite."""
        return f"the loss is {loss} at step {step + 1}: a learning rate of {self.rate} is too large for this base model"

    def last_step_not_finite(self) -> str:
        """Why a user's result is no good whose losses were finite to the end."""
        return f"its last step is not finite: a learning rate of {self.rate} is too large"


def summed_rate(plan: TrainSettings, steps: int) -> float:
    """The sum of the rates of a user's `steps` steps: how far AdamW, whose steps have one size, can move an edit.

    Central training and federated rounds are held against each other by it. Users' edits are averaged, so that a round
    moves the collective edit by what one average user's steps add up to, however many users there are.
    """
    return math.fsum(plan.rate_at(step, steps) for step in range(steps))


@dataclass
class UserResult:
    """What one user's training did: optimizer steps, rows seen, and the loss of each step."""

    steps: int = 0
    rows: int = 0
    step_losses: list[float] = field(default_factory=list)
    step_weights: list[int] = field(default_factory=list)  # rows of each step
    error: str = ""  # why this user's training stopped early; the others go on

    def add_step(self, loss: float, rows: int) -> None:
        """Count a step that was taken."""
        self.steps += 1
        self.rows += rows
        self.step_losses.append(loss)
        self.step_weights.append(rows)

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
