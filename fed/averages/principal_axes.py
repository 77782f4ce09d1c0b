"""A map's coordinates in the principal axes of all clients' maps, which the maps alone fix.

Entries of the factors mean nothing across clients (`fed.edits.maps`); these coordinates do, and a statistic can be
taken of them entry by entry.

Shapes:  K clients · r rank · p × q a map · m, n ≤ K r axes
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fed.edits.maps import Factors


def in_principal_axes(place: Factors, entrywise: Callable[[Tensor], Tensor], at_once: int = 1 << 24) -> Factors:
    """A statistic of the maps' coordinates in their principal axes, as one map.

    The axes are the left singular vectors U of [M₁ | … | M_K] and the right ones V of the maps on top of one another;
    Cᵢ = Uᵀ Mᵢ V has all of Mᵢ in it. The other coordinates of a client do not matter, for only Mᵢ enters.

    Args:
        place: the maps.
        entrywise: (K, rows, n) coordinates -> (rows, n), each entry by itself and odd in its sign (an axis has none).
        at_once: numbers held at one time.
    Returns:
        the map U C Vᵀ of one client: left (1, p, m), right (1, m, q).
    """
    Q_left, S_left = torch.linalg.qr(place.left)  # (K, p, r), (K, r, r)
    Q_right, S_right = torch.linalg.qr(place.right.mT)
    core = S_left @ S_right.mT  # Mᵢ = Q_left coreᵢ Q_rightᵀ
    U = torch.linalg.svd(torch.cat(list(Q_left @ core), dim=1), full_matrices=False).U  # (p, m)
    V = torch.linalg.svd(torch.cat(list(Q_right @ core.mT), dim=1), full_matrices=False).U  # (q, n)
    right = place.right @ V  # (K, r, n)
    rows = max(1, at_once // (len(right) * V.shape[1]))
    C = torch.cat([entrywise((axes.mT @ place.left) @ right) for axes in U.split(rows, dim=1)])
    return Factors(U.unsqueeze(0), (C @ V.mT).unsqueeze(0))
