"""The sign-flip (randomization) test: if two arms do not differ, each user's difference could have had the other sign.

    p = share of sign patterns s with | Σ sᵢ dᵢ | ≥ | Σ dᵢ |

Up to 14 users all 2ⁿ patterns are tried, beyond that a seeded draw of them, in which the one that was seen counts as
well (Phipson & Smyth, 2010). No distribution is assumed, only that differences are symmetric about zero if nothing
differs, which they are where labels were exchanged. The price: p is a multiple of 2 / 2ⁿ, so with five users it is
never below 2 / 32 = 0.0625 and cannot reach 5 %; six users can (2 / 64).
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT_USERS = 14  # 2¹⁴ = 16,384 patterns
DRAWS = 9999


def p_value(differences: NDArray[np.float64], *, draws: int = DRAWS, seed: int = 0) -> Any:
    """Two-sided p that the differences are symmetric about zero.

    Args:
        differences: (..., n) finite differences of n ≥ 1 users; leading axes are data sets of their own.
        draws: sign patterns drawn beyond `EXACT_USERS` users.
        seed: of these draws.

    Returns:
        An array of the shape of the leading axes.
    """
    users = differences.shape[-1]
    exact = users <= EXACT_USERS
    signs = _all_signs(users) if exact else _drawn_signs(users, draws, seed)
    seen = np.abs(differences.sum(-1, keepdims=True))
    # Patterns with the very sum that was seen count, whatever order their rounding errors came in.
    slack = 1e-12 * np.abs(differences).sum(-1, keepdims=True)
    as_far = (np.abs(differences @ signs.T) >= seen - slack).sum(-1)
    return as_far / len(signs) if exact else (as_far + 1) / (draws + 1)


@functools.cache
def _all_signs(users: int) -> NDArray[np.float64]:
    """(2ⁿ⁻¹, n): the first sign is +, for a pattern and its opposite have the same |sum|."""
    numbers = np.arange(2 ** (users - 1))[:, None]
    return np.array([1.0, -1.0])[(numbers >> np.arange(users) & 1)[:, ::-1]]


@functools.cache
def _drawn_signs(users: int, draws: int, seed: int) -> NDArray[np.float64]:
    return np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, users))
