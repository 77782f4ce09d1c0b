"""The sign-flip (randomization) test: if two arms do not differ, each user's difference could have had the other sign.

    p = share of sign patterns s with | Σ sᵢ dᵢ | ≥ | Σ dᵢ |

Up to 14 users all 2ⁿ patterns are tried, beyond that a seeded draw of 1,999 of them, in which the one that was seen
counts as well (Phipson & Smyth, 2010). No distribution is assumed, only that differences are symmetric about zero if
nothing differs, which they are where labels were exchanged. The price: p is a multiple of 2 / 2ⁿ, so with five users
it is never below 2 / 32 = 0.0625 and cannot reach 5 %; six users can (2 / 64).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT_USERS = 14  # 2¹⁴ = 16,384 patterns
DRAWS = 1999
BLOCK = 2**21  # signs held at once, 16 MiB


def p_value(differences: NDArray[np.float64], *, seed: int = 0) -> Any:
    """Two-sided p that the differences are symmetric about zero.

    Args:
        differences: (..., n) finite differences of n ≥ 1 users; leading axes are data sets of their own.
        seed: of the patterns drawn beyond `EXACT_USERS` users.

    Returns:
        An array of the shape of the leading axes.
    """
    users = differences.shape[-1]
    exact = users <= EXACT_USERS
    seen = np.abs(differences.sum(-1, keepdims=True))
    # Patterns with the very sum that was seen count, whatever order their rounding errors came in.
    far = seen - 1e-12 * np.abs(differences).sum(-1, keepdims=True)
    blocks = [_all_signs(users)] if exact else _drawn_signs(users, seed)
    as_far = sum((np.abs(differences @ signs.T) >= far).sum(-1) for signs in blocks)
    return as_far / 2 ** (users - 1) if exact else (as_far + 1) / (DRAWS + 1)


def norm_p_value(vectors: NDArray[np.float64], *, seed: int = 0) -> float:
    """p that vectors are symmetric about zero, by the length of their sum: share of patterns with ‖Σ sᵢ vᵢ‖ ≥ ‖Σ vᵢ‖.

    Args:
        vectors: (n, d) finite vectors of n ≥ 1 users.
        seed: of the patterns drawn beyond `EXACT_USERS` users.
    """
    users = len(vectors)
    exact = users <= EXACT_USERS
    gram = vectors @ vectors.T
    far = gram.sum() - 1e-12 * np.abs(gram).sum()
    blocks = [_all_signs(users)] if exact else _drawn_signs(users, seed)
    as_far = sum(int((((signs @ gram) * signs).sum(-1) >= far).sum()) for signs in blocks)
    return as_far / 2 ** (users - 1) if exact else (as_far + 1) / (DRAWS + 1)


@functools.cache
def _all_signs(users: int) -> NDArray[np.float64]:
    """(2ⁿ⁻¹, n): the first sign is +, for a pattern and its opposite have the same |sum|."""
    numbers = np.arange(2 ** (users - 1))[:, None]
    return np.array([1.0, -1.0])[(numbers >> np.arange(users) & 1)[:, ::-1]]


def _drawn_signs(users: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """(≤ block, n) each, `DRAWS` in all: all patterns of ten thousand users at once would be 160 MB."""
    rng, block, width = np.random.default_rng(seed), max(1, BLOCK // users), -(-users // 8)
    for start in range(0, DRAWS, block):
        rows = min(block, DRAWS - start)
        bits = np.frombuffer(rng.bytes(rows * width), np.uint8).reshape(rows, width)
        yield 1.0 - 2.0 * np.unpackbits(bits, axis=1, count=users).astype(np.float64)
