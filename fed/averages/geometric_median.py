"""The geometric median of edits as affine maps (Weiszfeld, 1937), brought back to rank r.

Shapes:  K clients · L edited blocks · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fed.averages.entrywise import Edit
from fed.averages.svd import svd_mean
from fed.edits.maps import inner_products_of_edits


def geometric_weights(edits: Sequence[Edit], tolerance: float = 1e-12, steps: int = 2000) -> list[float]:
    """The shares α of K edits in their geometric median Σ αᵢ vᵢ, the map with the least sum of distances to theirs.

    One client is one point: its affine maps [M | c] of all layers, so that neither the coordinates of R nor a single
    layer decides.
    """
    return weiszfeld(inner_products_of_edits(edits), tolerance, steps)


def weiszfeld(G: Tensor, tolerance: float = 1e-12, steps: int = 2000) -> list[float]:
    """The shares α of K points in their geometric median, from their inner products G (K, K) alone.

    Weiszfeld's iteration (1937), αᵢ ∝ 1 / ‖vᵢ − Σ αⱼ vⱼ‖, from the mean on.
    """
    K = len(G)
    scale = float(G.diagonal().max().clamp(min=0).sqrt())
    shares = torch.full((K,), 1.0 / K, dtype=torch.float64)
    for _ in range(steps if scale else 0):
        squares = G.diagonal() - 2 * G @ shares + shares @ G @ shares
        near = squares.clamp(min=0).sqrt().clamp(min=1e-9 * scale)  # an edit that is the median itself
        moved = (1 / near) / (1 / near).sum()
        done = float((moved - shares).abs().max()) < tolerance
        shares = moved
        if done:
            break
    return [float(share) for share in shares]


def geometric_median(edits: Sequence[Edit], previous: Edit | None = None) -> dict[str, Tensor]:
    """The edit of rank r closest to the geometric median of the edits' maps; `previous` as for `svd_mean`."""
    return svd_mean(edits, geometric_weights(edits), previous)
