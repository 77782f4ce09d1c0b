"""The mean of LoRA adapters as maps B A, brought back to rank r (FlexLoRA; Bai et al., 2024).

Shapes:  K clients · r rank · in, out of a Linear
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fed.averages.entrywise import Edit, shares_of
from fed.edits import stiefel


def lora_svd_mean(adapters: Sequence[Edit], weights: Sequence[float], previous: Edit) -> dict[str, Tensor]:
    """LoRA adapters of rank r closest to the mean map Σ pᵢ Bᵢ Aᵢ of each module (as FlexLoRA; Bai et al., 2024).

    A⁺ are the top r right singular vectors at the size that `previous`'s A has (AdamW's steps do not scale with A);
    B⁺ carries the singular values. Where nobody moved, the adapters stay as they were.

    Args:
        adapters: K adapters, "….lora_A.weight" (r, in) and "….lora_B.weight" (out, r) per module.
    """
    shares = shares_of(weights)
    maps = []
    for key in previous:
        if ".lora_A." in key:
            other = key.replace(".lora_A.", ".lora_B.")
            A = torch.cat([a[key].double() for a in adapters])  # (K r, in)
            B = torch.cat([p * a[other].double() for p, a in zip(shares, adapters, strict=True)], dim=1)  # (out, K r)
            maps.append((B, A))
    return nearest_adapters(maps, previous)


def nearest_adapters(maps: Sequence[tuple[Tensor, Tensor]], previous: Edit) -> dict[str, Tensor]:
    """The adapters of rank r closest to these maps, scaled and aligned as `lora_svd_mean` says.

    Args:
        maps: the factors (out, m) and (m, in) of each module's map, m ≥ r, in the order of `previous`.
        previous: what the clients started from.
    """
    means: dict[str, Tensor] = {}
    for key, (B, A) in zip((key for key in previous if ".lora_A." in key), maps, strict=True):
        other = key.replace(".lora_A.", ".lora_B.")
        before = previous[key].double()
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
    return {key: means[key] for key in previous}
