"""Averages of edits, for the server's side of a federated round.

An edit is an affine map, v(x) = M x + c with M = Rᵀ(W − R) and c = Rᵀ b, of rank at most r. For any orthogonal
Q, (QR, QW, Qb) is the same edit, so a mean of R, W and b entry by entry can destroy even clients that agree.
`svd_mean` averages the maps themselves.

Shapes:  K clients · L edited layers · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fed.averages.entrywise import Edit, fedavg
from fed.averages.svd import svd_mean

AVERAGES = ("svd", "fedavg")


def average(
    name: str, edits: Sequence[Edit], weights: Sequence[float], previous: Edit | None = None
) -> dict[str, Tensor]:
    """The average called `name`. Raises ValueError for a name that is not in AVERAGES."""
    if name == "svd":
        return svd_mean(edits, weights, previous)
    if name == "fedavg":
        return fedavg(edits, weights)
    raise ValueError(f"average must be one of {', '.join(AVERAGES)}, got {name!r}")
