"""Averages of edits, for the server's side of a federated round.

An edit is an affine map, v(x) = M x + c with M = Rᵀ(W − R) and c = Rᵀ b, of rank at most r. For any orthogonal
Q, (QR, QW, Qb) is the same edit, so a mean of R, W and b entry by entry can destroy even clients that agree.
`svd_mean` averages the maps themselves.

Shapes:  K clients · L edited layers · r rank · d hidden size
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fed import stiefel

AVERAGES = ("svd", "fedavg")
Edit = Mapping[str, Tensor]


def _weights(weights: Sequence[float]) -> list[float]:
    if not weights or any(not math.isfinite(w) or w < 0 for w in weights) or sum(weights) <= 0:
        raise ValueError(f"weights must be finite, not negative, and not all zero, got {list(weights)}")
    total = math.fsum(weights)
    return [w / total for w in weights]


def fedavg(edits: Sequence[Edit], weights: Sequence[float]) -> dict[str, Tensor]:
    """The entrywise weighted mean (McMahan et al. 2017). Loses R Rᵀ = I: kept as the baseline to beat.

    Args:
        edits: K edits {"R" (L, r, d), "W" (L, r, d), "b" (L, r)}. weights: K, normalised here.
    """
    shares = _weights(weights)
    return {
        name: torch.stack([p * edit[name].double() for p, edit in zip(shares, edits, strict=True)])
        .sum(0)
        .to(edits[0][name].dtype)
        for name in edits[0]
    }


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
    shares = _weights(weights)
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


def geometric_weights(edits: Sequence[Edit], tolerance: float = 1e-12, steps: int = 2000) -> list[float]:
    """The shares α of K edits in their geometric median Σ αᵢ vᵢ, the map with the least sum of distances to theirs.

    Weiszfeld's iteration (1937), αᵢ ∝ 1 / ‖vᵢ − Σ αⱼ vⱼ‖, from the mean on. One client is one point: its affine maps
    [M | c] of all layers, so that neither the coordinates of R nor a single layer decides. The iteration needs the
    inner products of the maps alone, ⟨vᵢ, vⱼ⟩ = tr(Dᵢᵀ Rᵢ Rⱼᵀ Dⱼ) + cᵢ·cⱼ, and the factors give them, never a d × d
    matrix.
    """
    K = len(edits)
    G = torch.zeros(K, K, dtype=torch.float64)
    for layer in range(edits[0]["R"].shape[0]):
        R, W, b = (torch.stack([edit[name][layer].double().cpu() for edit in edits]) for name in ("R", "W", "b"))
        A, D = R.flatten(0, 1), (W - R).flatten(0, 1)  # (K r, d)
        c = (b.unsqueeze(1) @ R).squeeze(1)  # (K, d)
        G += ((A @ A.mT) * (D @ D.mT)).unflatten(0, (K, -1)).unflatten(2, (K, -1)).sum((1, 3)) + c @ c.mT
    scale = float(G.diagonal().max().clamp(min=0).sqrt())
    shares = torch.full((K,), 1.0 / K, dtype=torch.float64)
    for _ in range(steps if scale else 0):
        squares = G.diagonal() - 2 * G @ shares + shares @ G @ shares
        near = squares.clamp(min=0).sqrt().clamp(min=1e-9 * scale)  # an edit that is the median itself
        moved = (1 / near) / (1 / near).sum()
        done = float((moved - shares).abs().max()) < tolerance
        shares = moved
        if done:
            break
    return [float(share) for share in shares]


def geometric_median(edits: Sequence[Edit], previous: Edit | None = None) -> dict[str, Tensor]:
    """The edit of rank r closest to the geometric median of the edits' maps; `previous` as for `svd_mean`."""
    return svd_mean(edits, geometric_weights(edits), previous)


def lora_svd_mean(adapters: Sequence[Edit], weights: Sequence[float], previous: Edit) -> dict[str, Tensor]:
    """LoRA adapters of rank r closest to the mean map Σ pᵢ Bᵢ Aᵢ of each module (as FlexLoRA; Bai et al., 2024).

    A⁺ are the top r right singular vectors at the size that `previous`'s A has (AdamW's steps do not scale with A);
    B⁺ carries the singular values. Where nobody moved, the adapters stay as they were.

    Args:
        adapters: K adapters, "….lora_A.weight" (r, in) and "….lora_B.weight" (out, r) per module.
    """
    shares = _weights(weights)
    means: dict[str, Tensor] = {}
    for key in adapters[0]:
        if ".lora_A." not in key:
            continue
        other = key.replace(".lora_A.", ".lora_B.")
        before = previous[key].double()
        A = torch.cat([a[key].double() for a in adapters])  # (K r, in)
        B = torch.cat([p * a[other].double() for p, a in zip(shares, adapters, strict=True)], dim=1)  # (out, K r)
        Q, T = torch.linalg.qr(B)
        P, S = torch.linalg.qr(A.mT)
        U, sigma, Vh = torch.linalg.svd(T @ S.mT)
        r = before.shape[0]
        if float(sigma[0]) == 0.0:
            means[key], means[other] = previous[key].clone(), torch.zeros_like(previous[other])
            continue
        size = float(before.norm()) / math.sqrt(r)
        new_A, new_B = size * (P @ Vh[:r].mT).mT, (Q @ U[:, :r]) * (sigma[:r] / size)
        turn = stiefel.procrustes(new_A, before)
        means[key], means[other] = (turn @ new_A).to(previous[key].dtype), (new_B @ turn.mT).to(previous[key].dtype)
    return {key: means[key] for key in adapters[0]}


def average(
    name: str, edits: Sequence[Edit], weights: Sequence[float], previous: Edit | None = None
) -> dict[str, Tensor]:
    """The average called `name`. Raises ValueError for a name that is not in AVERAGES."""
    if name == "svd":
        return svd_mean(edits, weights, previous)
    if name == "fedavg":
        return fedavg(edits, weights)
    raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {name!r}")
