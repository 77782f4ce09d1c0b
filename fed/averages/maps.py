"""Edits and LoRA adapters as the maps that they are, compared by their factors: M = A B, never as d × d matrices.

    edit:     [M | c] = Rᵀ [W − R | b]        per edited layer
    adapter:  M = B A                         per module

For any orthogonal Q an edit is (QR, QW, Qb) as well, and an adapter for any invertible G is (B G⁻¹, G A): entries of
the factors mean nothing across clients. Inner products of maps do, and so do a map's coordinates in the principal axes
of all clients' maps, which the maps alone fix.

Shapes:  K clients · r rank · p × q a map · m, n ≤ K r axes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.averages.entrywise import Edit


@dataclass(frozen=True)
class Factors:
    """The maps of K clients at one place (a layer, a module): Mᵢ = left[i] @ right[i].

    Attributes:
        left: (K, p, r) float64. right: (K, r, q) float64.
    """

    left: Tensor
    right: Tensor


def factors_of_edits(edits: Sequence[Edit]) -> list[Factors]:
    """One entry a layer: Rᵀ (d, r) and [W − R | b] (r, d + 1)."""
    R, W, b = (torch.stack([edit[name].double().cpu() for edit in edits], dim=1) for name in ("R", "W", "b"))
    right = torch.cat([W - R, b.unsqueeze(-1)], dim=-1)
    return [Factors(left.mT, of_layer) for left, of_layer in zip(R, right, strict=True)]


def factors_of_adapters(adapters: Sequence[Edit]) -> list[Factors]:
    """One entry a module: lora_B (out, r) and lora_A (r, in), in the order of the tensors."""
    keys = [key for key in adapters[0] if ".lora_A." in key]
    return [
        Factors(
            torch.stack([adapter[key.replace(".lora_A.", ".lora_B.")].double().cpu() for adapter in adapters]),
            torch.stack([adapter[key].double().cpu() for adapter in adapters]),
        )
        for key in keys
    ]


def inner_products_of_edits(edits: Sequence[Edit]) -> Tensor:
    """⟨vᵢ, vⱼ⟩ = tr(Dᵢᵀ Rᵢ Rⱼᵀ Dⱼ) + cᵢ·cⱼ of the edits' affine maps, summed over layers: (K, K) float64."""
    K = len(edits)
    G = torch.zeros(K, K, dtype=torch.float64)
    for layer in range(edits[0]["R"].shape[0]):
        R, W, b = (torch.stack([edit[name][layer].double().cpu() for edit in edits]) for name in ("R", "W", "b"))
        A, D = R.flatten(0, 1), (W - R).flatten(0, 1)  # (K r, d)
        c = (b.unsqueeze(1) @ R).squeeze(1)  # (K, d)
        G += ((A @ A.mT) * (D @ D.mT)).unflatten(0, (K, -1)).unflatten(2, (K, -1)).sum((1, 3)) + c @ c.mT
    return G


def inner_products_of_adapters(adapters: Sequence[Edit]) -> Tensor:
    """⟨Bᵢ Aᵢ, Bⱼ Aⱼ⟩ summed over modules: (K, K) float64."""
    K = len(adapters)
    G = torch.zeros(K, K, dtype=torch.float64)
    for place in factors_of_adapters(adapters):
        B, A = place.left.mT.flatten(0, 1), place.right.flatten(0, 1)  # (K r, out), (K r, in)
        G += ((B @ B.mT) * (A @ A.mT)).unflatten(0, (K, -1)).unflatten(2, (K, -1)).sum((1, 3))
    return G


def in_principal_axes(place: Factors, entrywise: Callable[[Tensor], Tensor], at_once: int = 1 << 24) -> Factors:
    """A statistic of the maps' coordinates in their principal axes, as one map.

    The axes are the left singular vectors U of [M₁ | … | M_K] and the right ones V of the maps on top of one another;
    Cᵢ = Uᵀ Mᵢ V has all of Mᵢ in it. The other coordinates of a client do not matter, for only Mᵢ enters.

    Args:
        place: the maps.
        entrywise: (K, rows, n) coordinates -> (rows, n), each entry by itself and odd in its sign (an axis has none).
        at_once: numbers held at one time.
    Returns:
        the map U C Vᵀ of one client: left (1, p, m), right (1, m, q).
    """
    Q_left, S_left = torch.linalg.qr(place.left)  # (K, p, r), (K, r, r)
    Q_right, S_right = torch.linalg.qr(place.right.mT)
    core = S_left @ S_right.mT  # Mᵢ = Q_left coreᵢ Q_rightᵀ
    U = torch.linalg.svd(torch.cat(list(Q_left @ core), dim=1), full_matrices=False).U  # (p, m)
    V = torch.linalg.svd(torch.cat(list(Q_right @ core.mT), dim=1), full_matrices=False).U  # (q, n)
    right = place.right @ V  # (K, r, n)
    rows = max(1, at_once // (len(right) * V.shape[1]))
    C = torch.cat([entrywise((axes.mT @ place.left) @ right) for axes in U.split(rows, dim=1)])
    return Factors(U.unsqueeze(0), (C @ V.mT).unsqueeze(0))
