"""How much a forward pass over rows may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Limits of one forward pass.

    Attributes:
        tokens: padded tokens of one batch; one row is always taken.
        activation_cache: bytes for rows' hidden states below the first edits of each layer
        (`fed.forward.shared_states`), which a row's arms then share; 0 computes them anew for every arm.
    """

    tokens: int = 2048
    activation_cache: int = 0
