"""Averages of edits, for the server's side of a federated round.

An edit is an affine map, v(x) = M x + c with M = Rᵀ(W − R) and c = Rᵀ b, of rank at most r. For any orthogonal
Q, (QR, QW, Qb) is the same edit, so a mean of R, W and b entry by entry can destroy even clients that agree.
All but `fedavg` average or compare the maps themselves.

Shapes:  K clients · L edited blocks · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fed.averages.entrywise import Edit, fedavg
from fed.averages.exact import exact_mean
from fed.averages.polar import polar_mean
from fed.averages.robust import EDITS, NEEDS, robust_mean
from fed.averages.svd import svd_mean

AVERAGES = ("svd", "fedavg", "polar", "exact", "frozen-r", *NEEDS)


def average(
    name: str,
    edits: Sequence[Edit],
    weights: Sequence[float],
    previous: Edit | None = None,
    *,
    attackers: int = 0,
) -> dict[str, Tensor]:
    """The average called `name`.

    Args:
        name: of `AVERAGES`.
        edits: K clients' {"R" (L, r, d), "W" (L, r, d), "b" (L, r)}; for `frozen-r` what is trained of an edit whose R
            all have, {"D" (L, r, d), "b" (L, r)}, D = W − R: the map is linear in them, so their mean is the mean map.
        weights: K, normalised here; the robust averages count every client alike.
        previous: the edit that the clients started from; None: the first client's.
        attackers: clients of which the robust averages expect lies.
    Raises:
        ValueError: an unknown name; weights that are no shares; too few clients for so many attackers.
    """
    if name == "svd":
        return svd_mean(edits, weights, previous)
    if name in ("fedavg", "frozen-r"):
        return fedavg(edits, weights)
    if name == "exact":
        return exact_mean(edits, weights, previous)
    if name == "polar":
        return polar_mean(edits, weights, previous)
    if name in NEEDS:
        return robust_mean(name, edits, attackers, edits[0] if previous is None else previous, EDITS)
    raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {name!r}")
