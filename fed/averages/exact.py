"""The exact mean of edits as affine maps: nothing is cut off, so the edit has more rows than a client trains.

A mean of K edits of rank r has rank K r at most. It is an edit again, of that many orthonormal rows; the rows that
clients train come first and are the top ones, and the others are the residual that `svd` would have thrown away. Only
the first rows are trained (`fed.methods.perfit`), so that a round adds K r to the rank at most, up to d.

Shapes:  K clients · L edited blocks · r rows that are trained · q rows of an edit, r ≤ q ≤ d · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fed.averages.entrywise import Edit, shares_of
from fed.averages.svd import expressed, factored_mean, left_directions, stacked
from fed.edits import stiefel

NOTHING = 1e-6  # of the largest singular value: float32 on the wire leaves as much of a direction that is not there


def exact_mean(
    edits: Sequence[Edit],
    weights: Sequence[float],
    previous: Edit | None = None,
    *,
    rows: int = 0,
    trained: int = 0,
) -> dict[str, Tensor]:
    """The edit v(x) = Σ pᵢ vᵢ(x), of q orthonormal rows by falling singular value.

    Args:
        edits, weights: as for `fedavg`; edits that share the rows they do not train.
        previous: the edit that the clients started from.
        rows: q; 0: as many as K edits of their rank can need, min(d, K r).
        trained: the first rows, which are Procrustes-aligned among themselves to those of `previous`; 0: none.
    Returns:
        {"R" (L, q, d), "W" (L, q, d), "b" (L, q)}, computed in float64, in the dtype of the inputs.
    Raises:
        ValueError: the mean needs more than q rows.
    """
    shares = shares_of(weights)
    rank, d = edits[0]["R"].shape[1:]
    rows = rows or min(d, len(edits) * rank)
    means = []
    for layer in range(edits[0]["R"].shape[0]):
        A, B, c = factored_mean(edits, shares, layer)
        directions, sigma = left_directions(A, B, c)
        needed = int((sigma > NOTHING * sigma[0]).sum()) if float(sigma[0]) else 0
        if needed > rows:
            raise ValueError(
                f"the exact mean of {len(edits)} edits needs {needed} rows in a layer, and exact-rank is {rows}; "
                f"raise it, or set it to 0 (the hidden size)"
            )
        if not needed and previous is not None:
            R = previous["R"][layer].double()
        else:
            R = directions[:, :rows].mT.clone()
            if previous is not None and trained:
                before = previous["R"][layer, :trained].double()
                R[:trained] = stiefel.procrustes(R[:trained], before) @ R[:trained]
        means.append(expressed(R, A, B, c))
    return stacked(means, edits[0])
