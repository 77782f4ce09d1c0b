"""Users grouped by their distances, and how well such groups agree with known ones.

Average linkage: every user a group, then the two groups whose members are nearest on average become one, until as many
are left as were asked for. Nothing is drawn. Agreement is the adjusted Rand index (Hubert & Arabie, 1985):

    ARI = ( Σ_ij C(n_ij, 2) − E ) / ( (Σ_i C(a_i, 2) + Σ_j C(b_j, 2)) / 2 − E )
    E = Σ_i C(a_i, 2) · Σ_j C(b_j, 2) / C(n, 2)

1 for equal groups, 0 on average for groups at random.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from math import comb

import numpy as np

from fed.exploration.spectrum import Array
from fed.statistics.rank_correlation import ranks, standardized


def average_linkage(distances: Array, groups: int) -> list[int]:
    """Each user's group, numbered in the order of their first members.

    Args:
        distances: (U, U) symmetric.
        groups: how many to leave, 1 to U.

    Raises:
        ValueError: fewer groups than one, or more than users.
    """
    users = len(distances)
    if not 1 <= groups <= users:
        raise ValueError(f"{users} users make 1 to {users} groups, got {groups}")
    members: list[list[int]] = [[user] for user in range(users)]
    while len(members) > groups:
        pairs = ((i, j) for i in range(len(members)) for j in range(i + 1, len(members)))
        i, j = min(pairs, key=lambda pair: distances[np.ix_(members[pair[0]], members[pair[1]])].mean())
        members[i] += members.pop(j)
    group_of = {user: number for number, group in enumerate(sorted(members, key=min)) for user in group}
    return [group_of[user] for user in range(users)]


def adjusted_rand_index(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Agreement of two groupings of the same users; 1 where both are trivial in the same way."""

    def pairs(labels: Sequence[Hashable]) -> int:
        return sum(comb(count, 2) for count in Counter(labels).values())

    together, of_a, of_b, whole = pairs(list(zip(a, b, strict=True))), pairs(a), pairs(b), comb(len(a), 2)
    expected = of_a * of_b / whole if whole else 0.0
    most = (of_a + of_b) / 2
    return 1.0 if most == expected else (together - expected) / (most - expected)


def chance_of(index: float, a: Sequence[Hashable], b: Sequence[Hashable], *, draws: int = 999, seed: int = 0) -> float:
    """p that groups which have nothing to do with each other agree as well as `index`, by shuffling users."""
    rng = np.random.default_rng(seed)
    shuffled = (adjusted_rand_index(a, [b[i] for i in rng.permutation(len(b))]) for _ in range(draws))
    return (1 + sum(value >= index - 1e-12 for value in shuffled)) / (1 + draws)


def nearest_agree(distances: Array, labels: Sequence[Hashable]) -> tuple[float, float]:
    """(share of users whose nearest other has their label, that of a random other), of users with a label in common.

    (0, 0) where no two users have one in common.
    """
    count = Counter(labels)
    shared = [user for user, label in enumerate(labels) if count[label] > 1]
    if not shared:
        return 0.0, 0.0
    apart = distances + np.diag(np.full(len(distances), np.inf))
    agree = [labels[int(apart[user].argmin())] == labels[user] for user in shared]
    chance = [(count[labels[user]] - 1) / (len(labels) - 1) for user in shared]
    return float(np.mean(agree)), float(np.mean(chance))


def distances_agree(a: Array, b: Array, *, draws: int = 999, seed: int = 0) -> tuple[float, float]:
    """(ρ, p) of two (U, U) distances of the same users: Spearman's over pairs, p by shuffling users (Mantel, 1967).

    At least three users.
    """
    upper = np.triu_indices(len(a), 1)
    rng, of_a = np.random.default_rng(seed), standardized(ranks(a[upper]))
    rho = float(of_a @ standardized(ranks(b[upper])))
    orders = (rng.permutation(len(b)) for _ in range(draws))
    drawn = (of_a @ standardized(ranks(b[np.ix_(order, order)][upper])) for order in orders)
    return rho, (1 + sum(bool(value >= rho - 1e-12) for value in drawn)) / (1 + draws)
