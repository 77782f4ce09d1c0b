"""AdamW for many users' stacked tensors, each user as if it were alone, and the axes in which R is stepped.

Adam moves every coordinate by about the rate, whatever its gradient, so the coordinates matter. A model's hidden
states have a few channels far larger than the rest; stepped in the model's own axes, R crawls. pyreft's orthogonal
parametrization steps it in random axes and learns faster at the same rate; so do we, in axes drawn once.

Shapes:  U users · A users in a step · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from fed.forward.batching import to_device

BETAS, EPSILON = (0.9, 0.999), 1e-8  # AdamW's defaults, as in the paper's training


def axes_of(R: Tensor) -> Tensor:
    """The random orthogonal (d, d) axes for R (..., r, d): the same for every user, run and machine."""
    return _axes(R.shape[-1], R.dtype, str(R.device))


@lru_cache(maxsize=4)
def _axes(d: int, dtype: torch.dtype, device: str) -> Tensor:
    noise = torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)  # how many factor the matrix shows in its last digits
        return torch.linalg.qr(noise).Q.to(dtype).to(device)  # in this order: a device may have no float64
    finally:
        torch.set_num_threads(threads)


class StackedAdamW:
    """AdamW over tensors whose first dimension is the user, each user with a step count and rate of its own.

    A user that takes no part in a step keeps its numbers and moments untouched, exactly as if it were alone.

    Args:
        parameters: tensors (U, ...). axes: for each, an orthogonal (d, d) matrix in whose coordinates the last
        dimension is stepped, or None for the tensor's own.
    """

    def __init__(self, parameters: Sequence[Tensor], users: int, axes: Sequence[Tensor | None] | None = None) -> None:
        self._parameters = list(parameters)
        self._axes = list(axes) if axes is not None else [None] * len(self._parameters)
        self._mean = [torch.zeros_like(p) for p in self._parameters]
        self._square = [torch.zeros_like(p) for p in self._parameters]
        self._step = torch.zeros(users, dtype=torch.float64)

    @torch.no_grad()
    def step(self, active: Tensor, rates: Sequence[float]) -> None:
        """One update of the users in `active` ((A,) int64, best on the host: no wait for a GPU) with one rate each."""
        at = active.cpu()
        active = to_device(at, self._parameters[0].device)
        self._step[at] += 1
        t = self._step[at]
        size = torch.tensor(rates, dtype=torch.float64) / (1 - BETAS[0] ** t)
        root = torch.sqrt(1 - BETAS[1] ** t)
        for p, mean, square, axes in zip(self._parameters, self._mean, self._square, self._axes, strict=True):
            assert p.grad is not None
            shape = (-1, *([1] * (p.dim() - 1)))
            g = p.grad[active] if axes is None else p.grad[active] @ axes
            m = mean[active].lerp_(g, 1 - BETAS[0])
            v = square[active].mul_(BETAS[1]).addcmul_(g, g, value=1 - BETAS[1])
            mean[active], square[active] = m, v
            denominator = (v.sqrt() / root.to(p.dtype).to(p.device).view(shape)).add_(EPSILON)
            update = m / denominator
            p[active] = p[active] - size.to(p.dtype).to(p.device).view(shape) * (
                update if axes is None else update @ axes.mT
            )


@torch.no_grad()
def clip_per_user(parameters: Sequence[Tensor], largest: float) -> None:
    """Scale each user's gradient to a norm of at most `largest` (0 leaves it)."""
    if largest <= 0:
        return
    squares = sum(p.grad.flatten(1).square().sum(1) for p in parameters if p.grad is not None)
    assert isinstance(squares, Tensor)
    scale = (largest / (squares.sqrt() + 1e-6)).clamp(max=1.0)
    for p in parameters:
        assert p.grad is not None
        p.grad.mul_(scale.view(-1, *([1] * (p.dim() - 1))))
