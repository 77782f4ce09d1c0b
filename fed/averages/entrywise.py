"""The entrywise mean of edits, FedAvg (McMahan et al., 2017), and the shares that all weighted means take.

Shapes:  K clients · L edited blocks · r rank · d hidden size
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Edit = Mapping[str, Tensor]


def shares_of(weights: Sequence[float]) -> list[float]:
    if not weights or any(not math.isfinite(w) or w < 0 for w in weights) or sum(weights) <= 0:
        raise ValueError(f"weights must be finite, not negative, and not all zero, got {list(weights)}")
    total = math.fsum(weights)
    return [w / total for w in weights]


def fedavg(edits: Sequence[Edit], weights: Sequence[float]) -> dict[str, Tensor]:
    """The entrywise weighted mean (McMahan et al. 2017). Loses R Rᵀ = I: kept as the baseline to beat.

    Args:
        edits: K edits {"R" (L, r, d), "W" (L, r, d), "b" (L, r)}. weights: K, normalised here.
    """
    shares = shares_of(weights)
    return {
        name: torch.stack([p * edit[name].double() for p, edit in zip(shares, edits, strict=True)])
        .sum(0)
        .to(edits[0][name].dtype)
        for name in edits[0]
    }
