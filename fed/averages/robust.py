"""Means that f users who lie cannot move far: of the maps that edits and adapters are, never of their factors' entries.

    median      the geometric median (Pillutla et al., 2022, RFA)
    krum        the one map with the least sum of squared distances to its K − f − 2 nearest (Blanchard et al., 2017)
    multikrum   the mean of the K − f maps that krum ranks first
    trimmed     per coordinate, the mean without the f smallest and the f largest (Yin et al., 2018)
    bulyan      K − 2f maps picked by krum, one after the other; of these, per coordinate, the mean of the K − 4f
                nearest to the median (El Mhamdi et al., 2018)

Distances are those of affine maps, from inner products of factors. Coordinates are those in the principal axes of all
clients' maps (`fed.averages.principal_axes`): the factors' own entries differ with every client's orthogonal Q, and a
d × d matrix is never formed. What is left is brought back to rank r as `svd` does. Every user counts alike:
`num-examples` is a user's own word, and one that lies would be the mean by it.

Shapes:  K clients · f of them expected to lie · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.averages.entrywise import Edit
from fed.averages.geometric_median import weiszfeld
from fed.averages.lora_svd import lora_svd_mean, nearest_adapters
from fed.averages.principal_axes import in_principal_axes
from fed.averages.svd import nearest_edit, stacked, svd_mean
from fed.edits.maps import (
    Factors,
    factors_of_adapters,
    factors_of_edits,
    inner_products_of_adapters,
    inner_products_of_edits,
)

# Replies that a mean needs where f of them lie: the condition under which its paper proves anything.
NEEDS: dict[str, tuple[int, int]] = {
    "median": (2, 1),
    "trimmed": (2, 1),
    "krum": (2, 3),
    "multikrum": (2, 3),
    "bulyan": (4, 3),
}
NEEDS_ATTACKERS = ("trimmed", "bulyan")  # without any to expect they are the plain mean


class TooFewClients(ValueError):
    """Fewer replies than a mean needs against so many attackers."""


@dataclass(frozen=True)
class Family:
    """Tensors that are maps: how they compare, and how a mean of maps is again such tensors.

    Attributes:
        inner_products: of K clients, (K, K).
        factors: of K clients, place by place.
        mean: of clients by their shares; the third argument is what they started from.
        nearest: the tensors closest to one map a place; the second argument is what the clients started from.
    """

    inner_products: Callable[[Sequence[Edit]], Tensor]
    factors: Callable[[Sequence[Edit]], list[Factors]]
    mean: Callable[[Sequence[Edit], Sequence[float], Edit], dict[str, Tensor]]
    nearest: Callable[[Sequence[Factors], Edit], dict[str, Tensor]]


def robust_mean(
    name: str, replies: Sequence[Edit], attackers: int, previous: Edit, family: Family
) -> dict[str, Tensor]:
    """The mean called `name` of K replies of which `attackers` may lie.

    Args:
        name: of `NEEDS`.
        replies: edits or adapters, by `family`.
        attackers: f.
        previous: what the clients started from; the mean is aligned to it.
        family: `EDITS` or `ADAPTERS`.
    Returns:
        tensors in float64's rounding and the dtype of the inputs.
    Raises:
        TooFewClients: too few replies for so many attackers.
    """
    check_enough(name, len(replies), attackers)
    if name == "trimmed":
        return family.nearest(
            [in_principal_axes(place, _trimmed(attackers)) for place in family.factors(replies)], previous
        )
    G = family.inner_products(replies)
    if name == "bulyan":
        members = [replies[i] for i in one_after_the_other(G, attackers)]
        entrywise = _nearest_to_median(len(members) - 2 * attackers)
        return family.nearest([in_principal_axes(place, entrywise) for place in family.factors(members)], previous)
    if name == "median":
        return family.mean(replies, weiszfeld(G), previous)
    ranked = krum_order(G, attackers)
    count = 1 if name == "krum" else len(replies) - attackers
    members = [replies[i] for i in sorted(ranked[:count])]
    return family.mean(members, [1.0] * count, previous)


def check_enough(name: str, replies: int, attackers: int) -> None:
    """Raise TooFewClients where a mean cannot hold against so many attackers among so many replies."""
    times, plus = NEEDS[name]
    if replies < times * attackers + plus:
        raise TooFewClients(
            f"average={name!r} with attackers={attackers} needs at least {times} · {attackers} + {plus} = "
            f"{times * attackers + plus} replies, got {replies}; lower attackers, or have more users a round (fraction)"
        )


def krum_order(G: Tensor, attackers: int) -> list[int]:
    """The clients by Krum's score, the best first: the sum of squared distances to the K − f − 2 nearest others.

    Args:
        G: inner products, (K, K).
        attackers: f. Where K − f − 2 is less than one, the nearest other alone counts.
    """
    K = len(G)
    squares = (G.diagonal().unsqueeze(1) + G.diagonal() - 2 * G).clamp(min=0)
    squares.fill_diagonal_(0)
    near = squares.sort(dim=1).values[:, 1 : 1 + max(1, K - attackers - 2)]
    return torch.argsort(near.sum(1), stable=True).tolist()


def one_after_the_other(G: Tensor, attackers: int) -> list[int]:
    """Bulyan's K − 2f clients: Krum's best of those that are left, again and again; in the clients' order."""
    left, members = list(range(len(G))), list[int]()
    while len(members) < len(G) - 2 * attackers:
        best = left[krum_order(G[left][:, left], attackers)[0]]
        members.append(best)
        left.remove(best)
    return sorted(members)


def _trimmed(attackers: int) -> Callable[[Tensor], Tensor]:
    return lambda C: C.sort(dim=0).values[attackers : len(C) - attackers].mean(0)


def _nearest_to_median(count: int) -> Callable[[Tensor], Tensor]:
    def mean(C: Tensor) -> Tensor:
        ordered = C.sort(dim=0).values
        middle = (ordered[(len(C) - 1) // 2] + ordered[len(C) // 2]) / 2
        nearest = (C - middle).abs().argsort(dim=0, stable=True)[:count]
        return C.gather(0, nearest).mean(0)

    return mean


def _nearest_edits(places: Sequence[Factors], previous: Edit) -> dict[str, Tensor]:
    layers = []
    for layer, place in enumerate(places):
        before, right = previous["R"][layer].double(), place.right[0]
        layers.append(nearest_edit(place.left[0], right[:, :-1], right[:, -1], before.shape[0], before))
    return stacked(layers, previous)


def _nearest_adapters(places: Sequence[Factors], previous: Edit) -> dict[str, Tensor]:
    return nearest_adapters([(place.left[0], place.right[0]) for place in places], previous)


EDITS = Family(inner_products_of_edits, factors_of_edits, svd_mean, _nearest_edits)
ADAPTERS = Family(inner_products_of_adapters, factors_of_adapters, lora_svd_mean, _nearest_adapters)
