"""The mean of edits as affine maps, brought back to rank r: M = Rᵀ(W − R), c = Rᵀ b.

Shapes:  K clients · L edited layers · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

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
        means.append(_svd_mean_of_layer([{k: t[layer].double() for k, t in e.items()} for e in edits], shares, before))
    return {name: torch.stack([mean[name] for mean in means]).to(edits[0][name].dtype) for name in ("R", "W", "b")}


def _svd_mean_of_layer(edits: list[dict[str, Tensor]], shares: list[float], before: Tensor | None) -> dict[str, Tensor]:
    r = edits[0]["R"].shape[0]
    A = torch.cat([e["R"] for e in edits]).mT  # (d, K r): M̄ = A B, c̄ = A c
    B = torch.cat([p * (e["W"] - e["R"]) for p, e in zip(shares, edits, strict=True)])  # (K r, d)
    c = torch.cat([p * e["b"] for p, e in zip(shares, edits, strict=True)])  # (K r,)
    Q, T = torch.linalg.qr(A)
    _, S = torch.linalg.qr(torch.cat([B, c.unsqueeze(1)], dim=1).mT)
    U, sigma, _ = torch.linalg.svd(T @ S.mT)
    if float(sigma[0]) == 0.0 and before is not None:
        R = before  # nobody moved: the mean map is zero, and any R expresses it
    else:
        R = (Q @ U[:, :r]).mT
        if before is not None:
            R = stiefel.procrustes(R, before) @ R
    RA = R @ A
    return {"R": R, "W": R + RA @ B, "b": RA @ c}
