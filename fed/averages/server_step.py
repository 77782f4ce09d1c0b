"""The server's step from the edit that it broadcast towards the round's mean: rate, momentum, Adam, Adagrad, Yogi.

    Δ = x̄ − x      x = (D, b), D = W − R, in the coordinates of the broadcast edit; x̄ of the mean, aligned to them

    fedavg      x⁺ = x + η Δ
    fedavgm     m = β m + Δ                                                       x⁺ = x + η m
    fedadam     m = β m + (1 − β) Δ    v = β₂ v + (1 − β₂) Δ²                      x⁺ = x + η m / (√v + τ)
    fedadagrad                         v = v + Δ²                                 x⁺ = x + η Δ / (√v + τ)
    fedyogi     m = β m + (1 − β) Δ    v = v − (1 − β₂) Δ² sign(v − Δ²)            x⁺ = x + η m / (√v + τ)

fedavgm is Hsu et al. (2019), the others are Reddi et al. (2021, algorithm 2): β₂ = 0.99, τ = 1e-3, v from τ² on, no
correction of a bias. R is no vector, so it has no entries to step: with fedavg and fedavgm it takes the same step and
is brought back to orthonormal rows by its polar factor; the others, whose rate is a size of entries, take the mean's R.
W itself is never stepped: it carries R, and stepping both apart is what tears R Rᵀ = I and the map.

Tensors without R and W (LoRA's, an edit's whose R is frozen) are stepped entry by entry as they are.

Shapes:  L edited blocks · r rank · d hidden size
"""

from __future__ import annotations

import torch
from torch import Tensor

from fed.averages.entrywise import Edit
from fed.edits import stiefel
from fed.edits.loreft import in_coordinates

ADAPTIVE = ("fedadam", "fedadagrad", "fedyogi")
STEPPING = ("fedavgm", *ADAPTIVE)
RATES = dict.fromkeys(ADAPTIVE, 0.01)  # η where a run leaves it to the strategy; 1 with all others
BETA_2, TAU = 0.99, 1e-3


def rate_of(strategy: str, server_lr: float) -> float:
    """η: the run's, or where that is 0 the strategy's own."""
    return server_lr or RATES.get(strategy, 1.0)


class ServerStep:
    """One strategy's steps, round after round.

    Promise: R Rᵀ = I after each step, and a step of `fedavg` at rate 1 is the mean
    (tests/fed/averages/test_server_step.py).

    Args:
        strategy: "fedavg" or one of `STEPPING`.
        rate: η > 0.
        momentum: β in [0, 1), of fedavgm, fedadam and fedyogi.

    Attributes:
        state: what is kept from round to round, float64 tensors by name; empty before the first.
    """

    def __init__(self, strategy: str, *, rate: float, momentum: float) -> None:
        if strategy != "fedavg" and strategy not in STEPPING:
            raise ValueError(f"a server's step must be of fedavg, {', '.join(STEPPING)}, got {strategy!r}")
        self._strategy, self._rate, self._momentum = strategy, rate, momentum
        self.state: dict[str, Tensor] = {}

    def __call__(self, start: Edit, mean: Edit) -> dict[str, Tensor]:
        """The edit to broadcast next.

        Args:
            start: what the round's users started from. mean: of what they sent, aligned to `start`.
        Returns:
            tensors named as those of `mean`, computed in float64, in their dtype.
        """
        x, x_mean = in_coordinates(start), in_coordinates(mean)
        stepped = {name: x[name] + self._step_of(name, x_mean[name] - x[name]) for name in x if name != "R"}
        if "R" in x:
            way = x_mean["R"] - x["R"]
            R = x["R"] + (way if self._strategy in ADAPTIVE else self._step_of("R", way))
            stepped["R"], _ = stiefel.polar_factor(R)
        if "W" in mean:
            stepped["W"] = stepped["R"] + stepped.pop("D")
        return {name: stepped[name].to(tensor.dtype) for name, tensor in mean.items()}

    def _step_of(self, name: str, way: Tensor) -> Tensor:
        """What is added to the coordinates called `name`; keeps their moments."""
        beta, state = self._momentum, self.state
        if self._strategy == "fedavg":
            return self._rate * way
        if self._strategy == "fedavgm":
            state[f"m/{name}"] = beta * state.get(f"m/{name}", torch.zeros_like(way)) + way
            return self._rate * state[f"m/{name}"]
        # The adaptive ones: a first moment, except Adagrad's, and a second.
        v = state.get(f"v/{name}", torch.full_like(way, TAU**2))
        square = way.square()
        if self._strategy == "fedadagrad":
            m, v = way, v + square
        else:
            m = beta * state.get(f"m/{name}", torch.zeros_like(way)) + (1 - beta) * way
            state[f"m/{name}"] = m
            v = (
                BETA_2 * v + (1 - BETA_2) * square
                if self._strategy == "fedadam"
                else v - (1 - BETA_2) * square * torch.sign(v - square)
            )
        state[f"v/{name}"] = v
        return self._rate * m / (v.sqrt() + TAU)
