"""The exact mean: the mean of v(x) itself, of orthonormal rows, and never cut short in silence."""

import pytest
import torch

from fed.averages.average import average
from fed.averages.exact import exact_mean
from fed.averages.svd import svd_mean
from fed.edits.loreft import loreft
from tests.fed.averages.test_average import R_, D, L, assert_orthonormal, dense_mean, distance, edit, noise, rotated

WEIGHTS = [1.0, 2.0, 5.0]
X = noise(1, 20, D, seed=99)


def values(e, layer):
    """v(x) = φ(x) − x at twenty points."""
    return loreft(X, e["R"][layer], e["W"][layer], e["b"][layer]) - X


@pytest.mark.parametrize("clients", [1, 2, 3])
def test_its_value_is_the_mean_of_the_clients_values(clients):
    edits, weights = [edit(seed) for seed in range(clients)], WEIGHTS[:clients]
    mean = exact_mean(edits, weights)
    assert mean["R"].shape == (L, min(D, clients * R_), D)
    for layer in range(L):
        expected = sum(w * values(e, layer) for w, e in zip(weights, edits, strict=True)) / sum(weights)
        torch.testing.assert_close(values(mean, layer), expected, rtol=0, atol=1e-12)
    assert_orthonormal(mean)


def test_its_first_rows_are_the_svd_mean_and_the_others_what_that_throws_away():
    edits = [edit(seed) for seed in range(3)]
    mean, cut = exact_mean(edits, WEIGHTS, rows=9, trained=R_, previous=edit(7)), svd_mean(edits, WEIGHTS)
    first = {"R": mean["R"][:, :R_], "W": mean["W"][:, :R_], "b": mean["b"][:, :R_]}
    target = dense_mean([cut], [1.0])
    assert distance(first, target) < 1e-12
    assert distance(mean, dense_mean(edits, WEIGHTS)) < 1e-12 < distance(cut, dense_mean(edits, WEIGHTS))


def test_coordinates_do_not_matter_and_identical_clients_are_a_fixed_point():
    edits = [edit(seed) for seed in range(3)]
    turned = [rotated(e, seed) for seed, e in enumerate(edits)]
    assert distance(exact_mean(turned, WEIGHTS), dense_mean(edits, WEIGHTS)) < 1e-12
    same = exact_mean([rotated(edits[0], seed) for seed in range(3)], WEIGHTS)
    assert distance(same, dense_mean([edits[0]], [1.0])) < 1e-12


def test_a_mean_of_more_rows_than_allowed_is_refused_and_one_that_fits_is_not():
    edits = [edit(seed) for seed in range(3)]
    with pytest.raises(ValueError, match="mean of 3 edits needs 9 rows in a layer, and exact-rank is 8; raise it"):
        exact_mean(edits, WEIGHTS, rows=8)
    fits = exact_mean([rotated(edits[0], seed) for seed in range(3)], WEIGHTS, rows=4)
    assert fits["R"].shape == (L, 4, D) and distance(fits, dense_mean([edits[0]], [1.0])) < 1e-12


def test_nobody_moved_is_the_previous_edit_itself():
    still = edit(3, scale=0.0) | {"b": torch.zeros(L, R_, dtype=torch.float64)}
    mean = exact_mean([still] * 2, [1.0, 1.0], still, rows=R_, trained=R_)
    assert all(torch.equal(mean[name], still[name]) for name in still)


def test_of_edits_that_share_r_the_mean_of_d_and_b_is_the_mean_of_the_values():
    """`frozen-r`: linear, so that entries may be averaged."""
    edits = [edit(seed) for seed in range(3)]
    R = edits[0]["R"]
    sent = [{"D": e["W"] - e["R"], "b": e["b"]} for e in edits]
    mean = average("frozen-r", sent, WEIGHTS)
    for layer in range(L):
        each = [values({"R": R, "W": R + s["D"], "b": s["b"]}, layer) for s in sent]
        expected = sum(w * v for w, v in zip(WEIGHTS, each, strict=True)) / sum(WEIGHTS)
        whole = {"R": R, "W": R + mean["D"], "b": mean["b"]}
        torch.testing.assert_close(values(whole, layer), expected, rtol=0, atol=1e-12)
