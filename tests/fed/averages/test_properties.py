"""What every average of maps promises, over drawn clients: orthonormal rows, fixed points, coordinates, shares."""

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from fed.averages.average import average
from tests.fed.averages.test_average import assert_orthonormal, dense_mean, distance, edit, rotated

NAMES = ("svd", "polar", "exact")
DRAWS = {"seed": st.integers(0, 10_000), "count": st.integers(2, 3), "scale": st.sampled_from([0.05, 0.5, 5.0])}


def clients_of(seed, count, scale):
    """Clients that went different ways from one edit, and the edit."""
    before = edit(seed)
    clients = []
    for k in range(count):
        other = edit(seed + 7 * k + 1, scale=scale)
        R = torch.linalg.svd(before["R"] + 0.3 * other["R"], full_matrices=False)
        R = R.U @ R.Vh
        clients.append({"R": R, "W": R + other["W"] - other["R"], "b": other["b"]})
    return clients, before


@pytest.mark.parametrize("name", NAMES)
@given(**DRAWS)
@examples(max_examples=15)
def test_rows_are_orthonormal_and_a_clients_own_coordinates_do_not_matter(name, seed, count, scale):
    clients, before = clients_of(seed, count, scale)
    weights = [1.0 + k for k in range(count)]
    mean = average(name, clients, weights, before)
    assert_orthonormal(mean, 1e-10)
    turned = average(name, [rotated(client, seed + k) for k, client in enumerate(clients)], weights, before)
    assert distance(turned, dense_mean([mean], [1.0])) < 1e-9


@pytest.mark.parametrize("name", NAMES)
@given(**DRAWS)
@examples(max_examples=15)
def test_identical_clients_are_a_fixed_point_and_weights_are_shares(name, seed, count, scale):
    clients, before = clients_of(seed, count, scale)
    same = average(name, [rotated(clients[0], seed + k) for k in range(count)], [2.0] * count, before)
    assert distance(same, dense_mean(clients[:1], [1.0])) < 1e-9
    weighted = average(name, clients[:2], [1.0, 2.0], before)
    repeated = average(name, [clients[0], clients[1], clients[1]], [3.0, 3.0, 3.0], before)
    assert distance(repeated, dense_mean([weighted], [1.0])) < 1e-9


@given(**DRAWS)
@examples(max_examples=15)
def test_exact_is_the_mean_map_and_svd_is_never_worse_than_polar(seed, count, scale):
    clients, before = clients_of(seed, count, scale)
    weights = [1.0 + k for k in range(count)]
    target = dense_mean(clients, weights)
    errors = {name: distance(average(name, clients, weights, before), target) for name in NAMES}
    assert errors["exact"] < 1e-10 and errors["svd"] <= errors["polar"] + 1e-12
