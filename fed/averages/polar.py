"""The polar mean of edits: R⁺ = polar(Σ pᵢ Rᵢ), the closest orthonormal rows, and the means of D = W − R and of b.

Of D and never of W: W carries R, so a mean of W mixes the turning of the clients' rows into the map.

Shapes:  K clients · L edited blocks · r rank · d hidden size
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from fed.averages.entrywise import Edit, shares_of
from fed.edits import stiefel

FAR_BELOW_ONE = 0.1  # a singular value of the mean R under which its polar factor is ill-determined


def polar_mean(edits: Sequence[Edit], weights: Sequence[float], previous: Edit | None = None) -> dict[str, Tensor]:
    """R⁺ = polar(Σ pᵢ Rᵢ), W⁺ = R⁺ + Σ pᵢ Dᵢ, b⁺ = Σ pᵢ bᵢ, in coordinates that the clients have in common.

    (QR, QW, Qb) is the same edit for any orthogonal Q, so every client is first turned as near to `previous` as it can
    be (Procrustes): what it then adds to the mean does not depend on the coordinates that it was sent in.

    Args:
        edits, weights: as for `fedavg`. previous: the edit that the clients started from; None: the first client's.
    Returns:
        {"R", "W", "b"}, computed in float64, in the dtype of the inputs; R Rᵀ = I. Warns where clients' rows point in
        directions so different that a singular value of their mean is under `FAR_BELOW_ONE`.
    """
    target = (edits[0] if previous is None else previous)["R"].double()
    shares = shares_of(weights)
    R, D, b = (torch.zeros_like(edits[0][name], dtype=torch.float64) for name in ("R", "W", "b"))
    for share, edit in zip(shares, edits, strict=True):
        own = {name: tensor.double() for name, tensor in edit.items()}
        turn = stiefel.procrustes(own["R"], target)
        R += share * (turn @ own["R"])
        D += share * (turn @ (own["W"] - own["R"]))
        b += share * (turn @ own["b"].unsqueeze(-1)).squeeze(-1)
    rows, sizes = stiefel.polar_factor(R)
    if float(sizes.min()) < FAR_BELOW_ONE:
        warnings.warn(
            f"polar: the clients' rows cancel out, a singular value of their mean is {float(sizes.min()):.2g}"
            " where 1 is agreement; average='svd' needs no common rows",
            RuntimeWarning,
            stacklevel=2,
        )
    means = {"R": rows, "W": rows + D, "b": b}
    return {name: mean.to(edits[0][name].dtype) for name, mean in means.items()}
