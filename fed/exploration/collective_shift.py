"""The mean shift of all users: is there one, in which coordinates, and is it more than what any context does?

    v̄ = (1/U) Σ vᵢ         a coordinate:   t_j = v̄_j / (s_j / √U), two-sided, corrected by Holm over all d
                            as a whole:     sign flips of users, statistic ‖Σ sᵢ vᵢ‖ (`fed.statistics.sign_flip`)

A family of Holm's keeps 5 % for a false alarm in any coordinate; the sign flips ask one question of all of them, so
they see a shift that is spread too thin for any coordinate. The control has each user's shift by another user's
history, c_i. vᵢ − cᵢ, tested the same way, is what the own history does that another's does not: a shift that is
collective only because every context causes it cancels there.

    collective share = Σ_{i ≠ j} ⟨vᵢ, v_j⟩ / (U (U − 1))  over  (1/U) Σ ‖vᵢ‖²

is the part of the mean squared length that all users have in common, without the bias of ‖v̄‖² that few users have; 0
for unrelated vectors, 1 for equal ones.

Promise: where no shift is planted, both tests are wrong in at most 5 % of data sets, and a planted direction is found
(tests/fed/exploration/test_collective_shift.py).

Shapes:  U users · d hidden size
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fed.exploration.spectrum import Array, centred, directions
from fed.statistics import holm, sign_flip, student_t


@dataclass(frozen=True)
class CollectiveShift:
    """What all users' vectors have in common.

    Attributes:
        mean: (d,) v̄.
        over_error: (d,) mean over its standard error; 0 where all users agree on a zero, infinite on another number.
        p_values: (d,) two-sided, corrected over the coordinates.
        p_whole: of all coordinates at once.
        share: of the mean squared length that is common to all.
    """

    mean: Array
    over_error: Array
    p_values: Array
    p_whole: float
    share: float


def collective_shift(vectors: Array, *, seed: int = 0) -> CollectiveShift:
    """Test the mean of (U, d) vectors of U ≥ 2 users. seed: of the sign patterns, beyond 14 users.

    Raises:
        ValueError: fewer than two users.
    """
    users = len(vectors)
    if users < 2:
        raise ValueError(f"a mean's error over users needs at least 2 of them, got {users}")
    mean, error = vectors.mean(0), vectors.std(0, ddof=1) / users**0.5
    with np.errstate(divide="ignore", invalid="ignore"):
        over_error = np.where((error == 0) & (mean == 0), 0.0, mean / error)
    p_values = holm.corrected([student_t.two_sided(float(t), users - 1) for t in over_error])
    squares = float((vectors**2).sum())
    pairs = float((vectors.sum(0) ** 2).sum()) - squares
    return CollectiveShift(
        mean,
        over_error,
        np.array(p_values, dtype=np.float64),
        float(sign_flip.norm_p_value(vectors, seed=seed)),
        pairs / (users - 1) / squares if squares else 0.0,
    )


def agreement(a: Array, b: Array, *, draws: int = 999, seed: int = 0) -> tuple[float, float]:
    """(mean cosine, p) of what differs between users in (U, d) vectors a and in b, row by row, both means taken away.

    p: one-sided, by shuffling which row of b a row of a is compared with.
    """
    units = [centred(v) / np.linalg.norm(centred(v), axis=1, keepdims=True).clip(np.finfo(float).tiny) for v in (a, b)]
    cosines = units[0] @ units[1].T
    rows, rng = np.arange(len(a)), np.random.default_rng(seed)
    seen = float(np.diag(cosines).mean())
    drawn = (float(cosines[rows, rng.permutation(rows)].mean()) for _ in range(draws))
    return seen, (1 + sum(value >= seen - 1e-12 for value in drawn)) / (1 + draws)


def on_principal_axes(vectors: Array, axes: int = 2) -> tuple[Array, Array, Array]:
    """(users (U, axes), mean (axes,), share of the centred variance on each axis), with no shift at zero.

    The axes are the principal ones of what differs between users; the vectors themselves are put on them, so that the
    distance of their mean from zero shows.
    """
    off = centred(vectors)
    leading = directions(off, axes)
    places = vectors @ leading.T
    shares = ((off @ leading.T) ** 2).sum(0) / max(float((off**2).sum()), np.finfo(float).tiny)
    return places, places.mean(0), shares


def cosine(a: Array, b: Array) -> float:
    """Of two vectors; 0 where one has no length."""
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0
