"""Edits as subspaces and as functions: the same for every change of axes, against dense maps."""

import numpy as np
import pytest

from fed.exploration import subspaces


def edits(users=4, layers=2, rank=3, size=10, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(users):
        R = np.stack([np.linalg.qr(rng.standard_normal((size, rank)))[0].T for _ in range(layers)])
        W = R + rng.standard_normal((layers, rank, size))
        made.append({"R": R, "W": W, "b": rng.standard_normal((layers, rank))})
    return made


def as_map(edit):
    """All numbers of the affine map [M | c] of each layer."""
    return np.concatenate(
        [
            np.column_stack([R.T @ (W - R), R.T @ b]).ravel()
            for R, W, b in zip(edit["R"], edit["W"], edit["b"], strict=True)
        ]
    )


def test_inner_products_are_those_of_the_dense_maps():
    some = edits()
    maps = np.array([as_map(edit) for edit in some])
    products = subspaces.inner_products(some)
    assert products == pytest.approx(maps @ maps.T)
    dense = np.linalg.norm(maps[:, None] - maps[None], axis=-1)
    assert subspaces.function_distances(products) == pytest.approx(dense, abs=1e-6)
    centred = maps - maps.mean(0)
    assert subspaces.function_energies(products) == pytest.approx(
        np.linalg.svd(centred, compute_uv=False) ** 2, abs=1e-9
    )


def test_an_edit_in_other_axes_is_the_same_function():
    (edit,) = edits(users=1)
    Q = np.linalg.qr(np.random.default_rng(5).standard_normal((3, 3)))[0]
    turned = {"R": Q @ edit["R"], "W": Q @ edit["W"], "b": edit["b"] @ Q.T}
    assert subspaces.function_distances(subspaces.inner_products([edit, turned]))[0, 1] < 1e-6
    assert subspaces.principal_angles(edit["R"][0], turned["R"][0]).max() < 1e-4


def test_principal_angles_of_planes_that_were_turned_by_known_angles():
    a = np.eye(6)[:2]
    turned = np.array([[np.cos(0.3), 0, np.sin(0.3), 0, 0, 0], [0, 1.0, 0, 0, 0, 0]])
    assert subspaces.principal_angles(a, 2 * turned) == pytest.approx([0, np.degrees(0.3)], abs=1e-5)
    assert subspaces.principal_angles(a, np.eye(6)[4:]) == pytest.approx([90, 90])
    assert len(subspaces.orthonormal(np.array([[1.0, 0, 0], [2.0, 0, 0]]))) == 1


def test_a_share_within_a_random_span_is_what_chance_gives():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, 20))
    assert subspaces.share_within(vectors, rng.standard_normal((5, 20))) == pytest.approx(5 / 20, abs=0.03)
    assert subspaces.share_within(vectors[:3], vectors[:3]) == pytest.approx(1)
    angles = subspaces.random_angles(2, 3, 200, draws=20)
    assert len(angles) == 2 and (angles > 75).all()
