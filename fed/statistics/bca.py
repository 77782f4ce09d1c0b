"""The BCa bootstrap interval for a mean over users (Efron, 1987): percentiles moved for bias and skewness.

    low, high = the draws' quantiles at Φ( z₀ + (z₀ + z) / (1 − a (z₀ + z)) ),   z = ∓ 1.96 for 95 %
    z₀ = Φ⁻¹( share of draws below the mean )        a = Σ (dᵢ − d̄)³ / ( 6 (Σ (dᵢ − d̄)²)^{3/2} )

It follows skewness, which the t interval does not, and like every bootstrap it takes the spread of few users for that
of all: of its 95 % intervals over normal differences 15 % leave out the true mean at 5 users, 10 % at 12, 8 % at 20 and
at 30 (exponential ones: 20, 12, 9 and 7 %; 2,000 data sets each). To be asked for with many users alone.
"""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

DRAWS = 9999


def interval(differences: NDArray[np.float64], level: float = 0.95, *, seed: int = 0) -> tuple[float, float]:
    """(low, high) of the mean.

    Args:
        differences: (n,) finite differences of n ≥ 2 users.
        level: how often the interval is to cover the true mean, where users are many.
        seed: of the draws of n users with replacement.

    Raises:
        ValueError: fewer than two users.
    """
    users = len(differences)
    if users < 2:
        raise ValueError(f"an interval over users must have at least 2 of them, got {users}")
    mean = differences.mean()
    off = differences - mean
    square = (off**2).sum()
    if square == 0:
        return float(mean), float(mean)
    counts = np.random.default_rng(seed).multinomial(users, np.full(users, 1 / users), size=DRAWS)
    means = counts @ differences / users
    # Half of the draws that hit the mean itself count as below it; a share of 0 or 1 has no Φ⁻¹.
    share = ((means < mean).sum() + 0.5 * (means == mean).sum()) / DRAWS
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(share, 1 / DRAWS), 1 - 1 / DRAWS))
    skew = float((off**3).sum() / (6 * square**1.5))

    def moved(tail: float) -> float:
        z = bias + normal.inv_cdf(tail)
        return normal.cdf(bias + z / (1 - skew * z))

    tail = (1 - level) / 2
    low, high = np.quantile(means, [moved(tail), moved(1 - tail)])
    return float(low), float(high)
