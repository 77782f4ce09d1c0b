"""Spearman's rank correlation of two measures of the same users, and its p by permutation.

ρ = the correlation of ranks, equal values sharing their mean rank
p = share of orders of one measure with |ρ| at least as large; 9,999 drawn ones, and the one that was seen
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DRAWS = 9999


def spearman(x: NDArray[np.float64], y: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float] | None:
    """(ρ, p) of (n,) finite numbers each; None below three users, or where one measure is the same for all."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    a, b = (standardized(ranks(values)) for values in (x, y))
    rho = float(a @ b)
    rng = np.random.default_rng(seed)
    drawn = np.array([a @ rng.permutation(b) for _ in range(DRAWS)])
    return rho, float((1 + (np.abs(drawn) >= abs(rho) - 1e-12).sum()) / (1 + DRAWS))


def ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) from 1, equal values sharing their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank = count.cumsum() - (count - 1) / 2
    return np.asarray(mean_rank[place], dtype=np.float64)


def standardized(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) of mean 0 and length 1."""
    off = values - values.mean()
    return np.asarray(off / np.linalg.norm(off), dtype=np.float64)
