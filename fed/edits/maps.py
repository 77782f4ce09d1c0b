"""Edits and LoRA adapters as the maps that they are, compared by their factors, never as d × d matrices.

    edit:     φ(h) − h = M h + c     M = Rᵀ (W − R), c = Rᵀ b     per edited block
    adapter:  M = B A                                             per module

For any orthogonal Q an edit is (QR, QW, Qb) as well, and an adapter for any invertible G is (B G⁻¹, G A): entries of
the factors mean nothing across users. Inner products of maps do: with M = Pᵀ Q

    ⟨Mᵢ, Mⱼ⟩ = tr(Mᵢᵀ Mⱼ) = Σ (Pᵢ Pⱼᵀ) ∘ (Qᵢ Qⱼᵀ)

which is r × r. The difference of two maps of rank r is one of rank 2 r.

Shapes:  K users · L edited blocks · r rank · d hidden size · p × q a map
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.edits.loreft import in_coordinates

Edit = Mapping[str, Tensor]


@dataclass(frozen=True)
class Factors:
    """The maps of K users at one place (a block, a module): Mᵢ = left[i] @ right[i].

    Attributes:
        left: (K, p, r) float64. right: (K, r, q) float64.
    """

    left: Tensor
    right: Tensor


def factors_of_edits(edits: Sequence[Edit]) -> list[Factors]:
    """One entry a block, of [M | c]: Rᵀ (d, r) and [W − R | b] (r, d + 1)."""
    R, W, b = (torch.stack([edit[name].double().cpu() for edit in edits], dim=1) for name in ("R", "W", "b"))
    right = torch.cat([W - R, b.unsqueeze(-1)], dim=-1)
    return [Factors(left.mT, of_block) for left, of_block in zip(R, right, strict=True)]


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
    """⟨φᵢ, φⱼ⟩ = tr(Mᵢᵀ Mⱼ) + cᵢ·cⱼ of K edits {"R", "W" (L, r, d), "b" (L, r)}, summed over blocks: (K, K) float64."""
    K = len(edits)
    G = torch.zeros(K, K, dtype=torch.float64)
    for block in range(len(edits[0]["R"])):
        of_block = [in_coordinates({name: edit[name][block].cpu() for name in ("R", "W", "b")}) for edit in edits]
        R, D, b = (torch.stack([edit[name] for edit in of_block]) for name in ("R", "D", "b"))
        c = (b.unsqueeze(1) @ R).squeeze(1)  # (K, d)
        G += _of_all_pairs(R, D) + c @ c.mT
    return G


def inner_products_of_adapters(adapters: Sequence[Edit]) -> Tensor:
    """⟨Bᵢ Aᵢ, Bⱼ Aⱼ⟩ of K adapters, summed over modules: (K, K) float64."""
    K = len(adapters)
    G = torch.zeros(K, K, dtype=torch.float64)
    for place in factors_of_adapters(adapters):
        G += _of_all_pairs(place.left.mT, place.right)
    return G


def distance_of_edits(edit: Edit, other: Edit) -> float:
    """‖φ − φ'‖ of two edits as maps; infinite where a number is not finite."""
    one, two = in_coordinates(edit), in_coordinates(other)
    P = torch.cat([one["R"], two["R"]], dim=1)  # (L, 2 r, d)
    Q = torch.cat([one["D"], -two["D"]], dim=1)
    c = (one["b"].unsqueeze(-2) @ one["R"] - two["b"].unsqueeze(-2) @ two["R"]).squeeze(-2)  # (L, d)
    return root(float(_row_by_row(P, Q).sum() + c.square().sum()))


def distance_of_adapters(adapter: Edit, other: Edit) -> float:
    """‖B A − B' A'‖ over all modules; infinite where a number is not finite."""
    square = 0.0
    for one, two in zip(factors_of_adapters([adapter]), factors_of_adapters([other]), strict=True):
        P, Q = torch.cat([one.left, two.left], dim=-1).mT, torch.cat([one.right, -two.right], dim=-2)
        square += float(_row_by_row(P, Q).sum())
    return root(square)


def root(square: float) -> float:
    """Of a sum that rounding may have made negative; infinite where it overflowed."""
    return math.sqrt(max(0.0, square)) if math.isfinite(square) else math.inf


def _of_all_pairs(P: Tensor, Q: Tensor) -> Tensor:
    """(K, K) of the maps Pᵢᵀ Qᵢ: P (K, r, p), Q (K, r, q)."""
    K = len(P)
    rows = _row_by_row(P.flatten(0, 1), Q.flatten(0, 1))  # (K r, K r)
    return rows.unflatten(0, (K, -1)).unflatten(2, (K, -1)).sum((1, 3))


def _row_by_row(P: Tensor, Q: Tensor) -> Tensor:
    """(…, n, n) inner products of the n maps of rank one that P (…, n, p) and Q (…, n, q) have in their rows."""
    return (P @ P.mT) * (Q @ Q.mT)
