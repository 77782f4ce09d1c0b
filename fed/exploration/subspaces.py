"""What trained edits look like: as subspaces beside those of δ-vectors, and as functions beside each other.

An edit adds Rᵀ((W − R) h + b): whatever it does lies in the r directions of R's rows. As a function it is the affine
map M = Rᵀ(W − R), c = Rᵀb, the same for every orthogonal change of R's axes, so edits are compared by the inner
products of their maps (`fed.edits.maps`). Principal angles θ_k between two subspaces have cosines that are the singular
values of A Bᵀ, A and B orthonormal rows.

Shapes:  U users · L edited blocks · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from fed.edits.maps import inner_products_of_edits
from fed.exploration.spectrum import Array

Edit = Mapping[str, Array]  # R, W (L, r, d), b (L, r)


def orthonormal(rows: Array) -> Array:
    """(k, d) orthonormal rows that span what (n, d) rows span, k their rank."""
    _, values, leading = np.linalg.svd(np.atleast_2d(rows), full_matrices=False)
    return leading[values > values.max(initial=0.0) * max(rows.shape) * np.finfo(float).eps]


def principal_angles(a: Array, b: Array) -> Array:
    """(min(k_a, k_b),) degrees, smallest first, between the spans of (n_a, d) and (n_b, d) rows."""
    cosines = np.linalg.svd(orthonormal(a) @ orthonormal(b).T, compute_uv=False)
    return np.degrees(np.arccos(cosines.clip(-1.0, 1.0)))


def random_angles(a: int, b: int, dimensions: int, *, draws: int = 200, seed: int = 0) -> Array:
    """(min(a, b),) mean principal angles in degrees between random subspaces of these dimensions."""
    rng = np.random.default_rng(seed)
    drawn = [
        principal_angles(rng.standard_normal((a, dimensions)), rng.standard_normal((b, dimensions)))
        for _ in range(draws)
    ]
    return np.asarray(np.mean(drawn, axis=0))


def share_within(vectors: Array, span: Array) -> float:
    """The part of the squared length of (U, d) vectors that lies in the span of (n, d) rows; by chance k / d."""
    whole = float((vectors**2).sum())
    return float(((vectors @ orthonormal(span).T) ** 2).sum()) / whole if whole else 0.0


def inner_products(edits: Sequence[Edit], others: Sequence[Edit] | None = None) -> Array:
    """(U, U') float64 inner products of edits as functions, with themselves or with others."""
    everyone = [{name: torch.from_numpy(edit[name]) for name in ("R", "W", "b")} for edit in [*edits, *(others or ())]]
    products: Array = inner_products_of_edits(everyone).numpy()
    return products if others is None else products[: len(edits), len(edits) :]


def function_distances(products: Array) -> Array:
    """(U, U) ‖φᵢ − φ_j‖ from inner products."""
    squares = np.diag(products)
    return np.sqrt((squares[:, None] + squares[None, :] - 2 * products).clip(min=0.0))


def function_energies(products: Array) -> Array:
    """(U,) squared singular values of the edits as functions, their mean taken away, largest first."""
    users = len(products)
    centring = np.eye(users) - 1 / users
    return np.linalg.eigvalsh(centring @ products @ centring)[::-1].clip(min=0.0)
