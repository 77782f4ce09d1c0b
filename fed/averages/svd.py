"""The mean of edits as affine maps, brought back to rank r: M = Rᵀ(W − R), c = Rᵀ b.

Shapes:  K clients · L edited blocks · r rank · d hidden size · m columns of a factored map, K r for a mean of edits
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from fed.averages.entrywise import Edit, shares_of
from fed.edits import stiefel


def svd_mean(edits: Sequence[Edit], weights: Sequence[float], previous: Edit | None = None) -> dict[str, Tensor]:
    """The edit of rank r closest to the mean map [M̄ | c̄], M̄ = Σ pᵢ Rᵢᵀ Dᵢ, c̄ = Σ pᵢ Rᵢᵀ bᵢ, D = W − R.

    R⁺ are the top r left singular vectors, W⁺ = R⁺ + R⁺ M̄, b⁺ = R⁺ c̄: the best fit in the Frobenius norm
    (Eckart-Young), found on the stacked K·r factors through QR, never on a d × d matrix. R⁺ is Procrustes-aligned
    to `previous`, which changes coordinates only and keeps successive rounds comparable.

    Args:
        edits, weights: as for `fedavg`. previous: the edit that the clients started from.
    Returns:
        {"R", "W", "b"}, computed in float64, in the dtype of the inputs.
    """
    shares = shares_of(weights)
    means = []
    for layer in range(edits[0]["R"].shape[0]):
        before = previous["R"][layer].double() if previous is not None else None
        means.append(nearest_edit(*factored_mean(edits, shares, layer), edits[0]["R"].shape[1], before))
    return stacked(means, edits[0])


def factored_mean(edits: Sequence[Edit], shares: Sequence[float], layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """One layer's mean map by its factors, M̄ = A B and c̄ = A c: A (d, K r), B (K r, d), c (K r,), float64."""

    def of(name: str) -> Iterator[Tensor]:  # one tensor of each edit at a time: edits of many clients are gigabytes
        return (edit[name][layer].double() for edit in edits)

    A = torch.cat([*of("R")]).mT
    B = torch.cat([p * (W - R) for p, W, R in zip(shares, of("W"), of("R"), strict=True)])
    c = torch.cat([p * b for p, b in zip(shares, of("b"), strict=True)])
    return A, B, c


def left_directions(A: Tensor, B: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """The left singular vectors (d, min(d, m)) and the singular values of [A B | A c], the largest first."""
    Q, T = torch.linalg.qr(A)
    _, S = torch.linalg.qr(torch.cat([B, c.unsqueeze(1)], dim=1).mT)
    U, sigma, _ = torch.linalg.svd(T @ S.mT)
    return Q @ U, sigma


def nearest_edit(A: Tensor, B: Tensor, c: Tensor, rank: int, before: Tensor | None) -> dict[str, Tensor]:
    """The edit of this rank of one layer, (r, d), that is closest to the map x ↦ A (B x + c).

    Args:
        A, B, c: (d, m), (m, d), (m,), with m ≥ rank.
        before: (r, d), the R to align to; it is kept where the map is zero, which any R expresses.
    """
    directions, sigma = left_directions(A, B, c)
    if float(sigma[0]) == 0.0 and before is not None:
        R = before
    else:
        R = directions[:, :rank].mT
        if before is not None:
            R = stiefel.procrustes(R, before) @ R
    return expressed(R, A, B, c)


def expressed(R: Tensor, A: Tensor, B: Tensor, c: Tensor) -> dict[str, Tensor]:
    """The edit of these orthonormal rows R (r, d) that is closest to the map x ↦ A (B x + c)."""
    RA = R @ A
    return {"R": R, "W": R + RA @ B, "b": RA @ c}


def stacked(layers: Sequence[dict[str, Tensor]], like: Edit) -> dict[str, Tensor]:
    """Single layers' edits as one edit, in the dtype of `like`."""
    return {name: torch.stack([layer[name] for layer in layers]).to(like[name].dtype) for name in ("R", "W", "b")}
