"""The geometric median of edits as affine maps (Weiszfeld, 1937), brought back to rank r.

Shapes:  K clients · L edited layers · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fed.averages.entrywise import Edit
from fed.averages.svd import svd_mean


def geometric_weights(edits: Sequence[Edit], tolerance: float = 1e-12, steps: int = 2000) -> list[float]:
    """The shares α of K edits in their geometric median Σ αᵢ vᵢ, the map with the least sum of distances to theirs.

    Weiszfeld's iteration (1937), αᵢ ∝ 1 / ‖vᵢ − Σ αⱼ vⱼ‖, from the mean on. One client is one point: its affine maps
    [M | c] of all layers, so that neither the coordinates of R nor a single layer decides. The iteration needs the
    inner products of the maps alone, ⟨vᵢ, vⱼ⟩ = tr(Dᵢᵀ Rᵢ Rⱼᵀ Dⱼ) + cᵢ·cⱼ, and the factors give them, never a d × d
    matrix.
    """
    K = len(edits)
    G = torch.zeros(K, K, dtype=torch.float64)
    for layer in range(edits[0]["R"].shape[0]):
        R, W, b = (torch.stack([edit[name][layer].double().cpu() for edit in edits]) for name in ("R", "W", "b"))
        A, D = R.flatten(0, 1), (W - R).flatten(0, 1)  # (K r, d)
        c = (b.unsqueeze(1) @ R).squeeze(1)  # (K, d)
        G += ((A @ A.mT) * (D @ D.mT)).unflatten(0, (K, -1)).unflatten(2, (K, -1)).sum((1, 3)) + c @ c.mT
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
