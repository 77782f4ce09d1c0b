"""Singular values of many users' shifts: in how few directions do they lie (PerFit, Table 1), and how few would chance?

    V = (v₁ … v_U)ᵀ,  (U, d)      r_p = the smallest r with  Σ_{k ≤ r} σ_k²  ≥  p · Σ_k σ_k²

Uncentred as in the table, where the mean shift is one of the directions, or centred, where only what differs between
users counts. r_p is at most U (U − 1 centred): with fewer users than dimensions it says as much of the users as of the
model. So it never stands alone here:

    bootstrap      users drawn with replacement. Some 63 % of them are distinct, so where U bounds r the draws lie lower
    random         vectors of the same lengths in directions drawn uniformly: what r_p is where nothing is shared
    above chance   how many leading directions hold more than under `random`: one after the other, each by its share of
                   what the directions before it left (parallel analysis, Horn, 1965, with deflation: compared with the
                   k-th random direction, the first one of noise would pass four times too often)

Promise: where every direction is random, `above_chance` finds one in at most 5 % of data sets, and where a low rank is
planted it finds that rank (tests/fed/exploration/test_spectrum.py).

Shapes:  U users · d hidden size · n = min(U, d)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
SHARES = (0.80, 0.90, 0.95)
LEVEL = 0.05


def centred(vectors: Array) -> Array:
    """(U, d) minus their mean."""
    return vectors - vectors.mean(0)


def energies(vectors: Array) -> Array:
    """(n,) squared singular values, largest first, from the smaller of the two Gram matrices."""
    wide = vectors.shape[0] <= vectors.shape[1]
    gram = vectors @ vectors.T if wide else vectors.T @ vectors
    return np.linalg.eigvalsh(gram)[::-1].clip(min=0.0)


def dimensions_for(energy: Array, share: float) -> int:
    """r_p for squared singular values, largest first; 0 where there is no variance at all."""
    whole = energy.sum()
    if whole == 0:
        return 0
    return int(np.searchsorted(energy.cumsum(), share * whole * (1 - 1e-12)) + 1)


def directions(vectors: Array, count: int) -> Array:
    """(count, d) orthonormal: the leading right singular vectors, each with its largest entry positive.

    Raises:
        ValueError: more directions than there are.
    """
    if not 1 <= count <= min(vectors.shape):
        raise ValueError(f"there are {min(vectors.shape)} directions, got a wish for {count}")
    leading = np.linalg.svd(vectors, full_matrices=False)[2][:count]
    largest = np.take_along_axis(leading, np.abs(leading).argmax(1)[:, None], 1)
    return leading * np.sign(largest)


def random_directions(lengths: Array, dimensions: int, rng: np.random.Generator) -> Array:
    """(U, d): vectors of these lengths, their directions uniform and independent."""
    drawn = rng.standard_normal((len(lengths), dimensions))
    return drawn * (lengths / np.linalg.norm(drawn, axis=1))[:, None]


def bootstrap(
    vectors: Array,
    *,
    centre: bool,
    shares: Sequence[float] = SHARES,
    draws: int = 200,
    seed: int = 0,
) -> dict[float, tuple[float, float]]:
    """share -> the 95 % percentile interval of r_p over draws of users with replacement."""
    rng, users = np.random.default_rng(seed), len(vectors)
    drawn = []
    for _ in range(draws):
        sample = vectors[rng.integers(0, users, users)]
        energy = energies(centred(sample) if centre else sample)
        drawn.append([dimensions_for(energy, share) for share in shares])
    low, high = np.quantile(np.array(drawn), [0.025, 0.975], axis=0, method="inverted_cdf")
    return {share: (float(a), float(b)) for share, a, b in zip(shares, low, high, strict=True)}


@dataclass(frozen=True)
class Chance:
    """Leading directions against vectors of the same lengths in random directions.

    Attributes:
        above: how many hold more than chance, counted until the first that does not.
        p_values: of the directions that were tried, the last of them the one that failed.
        dimensions: share -> mean r_p of the random vectors.
        energies: (n,) their mean squared singular values, largest first.
    """

    above: int
    p_values: tuple[float, ...]
    dimensions: dict[float, float]
    energies: Array


def above_chance(
    vectors: Array, *, centre: bool, shares: Sequence[float] = SHARES, draws: int = 199, seed: int = 0
) -> Chance:
    """Try the leading directions one after the other, each by its share of what those before it left.

    Where k directions are taken away, what is left has k fewer dimensions on either side and rows of other lengths; so
    have the random vectors that it is compared with, whose first direction is the one that counts.

    Args:
        vectors: (U, d), at least two users.
        centre: whether what differs from the mean is tried.
        draws: of random vectors at each step; p values are multiples of 1 / (draws + 1).
    """
    rng = np.random.default_rng(seed)
    users, size = vectors.shape
    seen = centred(vectors) if centre else vectors
    left, values, right = np.linalg.svd(seen, full_matrices=False)
    control: list[Array] = []
    p_values: list[float] = []
    for k in range(max(1, min(users - centre, size) - 1)):
        rest = seen - (left[:, :k] * values[:k]) @ right[:k]
        # Centring is one more direction of the users that is gone: the one in which all are alike.
        gone = np.column_stack([left[:, :k], np.full((users, 1), users**-0.5)]) if centre else left[:, :k]
        lengths, drawn = np.linalg.norm(rest, axis=1), []
        for _ in range(draws):
            random = random_directions(lengths, size - k, rng)
            drawn.append(energies(random - gone @ (gone.T @ random)))
        control = control or drawn
        share = float(values[k]) ** 2 / max(float((values[k:] ** 2).sum()), np.finfo(float).tiny)
        as_large = sum(bool(energy[0] >= share * energy.sum()) for energy in drawn)
        p_values.append((1 + as_large) / (1 + draws))
        if p_values[-1] > LEVEL:
            break
    above = sum(p <= LEVEL for p in p_values)
    dimensions = {share: float(np.mean([dimensions_for(e, share) for e in control])) for share in shares}
    return Chance(above, tuple(p_values), dimensions, np.mean(control, axis=0))
