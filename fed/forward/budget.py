"""How much a forward pass over rows may take."""

from __future__ import annotations

from dataclasses import dataclass

from fed.base.model import BaseModel

_CACHE = 512 << 20  # bytes of keys and values of a batch that is decoded, where it takes more than its least


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


def decoded(base: BaseModel, token_budget: int) -> int:
    """Padded tokens, prompts' and new ones', of a batch that is decoded; `token_budget` is that of a pass that trains.

    A decoded token leaves keys and values alone in a block, where a trained one leaves some thirty tensors; and a step
    reads all weights whatever the batch: one of 24 rows takes half the time of one of 72. So four times as many tokens
    are taken at least, and up to sixteen times as many while keys and values as wide as the hidden states would fit.
    """
    token = 2 * base.skeleton.layers * base.skeleton.hidden_size * int(base.model.dtype.itemsize)
    return max(4 * token_budget, min(16 * token_budget, _CACHE // token))
