"""The polar mean, on the dense d × d maps that the code never forms."""

import numpy as np
import pytest
import torch

from fed.averages.polar import polar_mean
from fed.averages.svd import svd_mean
from tests.fed.averages.test_average import R_, L, assert_orthonormal, dense, dense_mean, distance, edit, noise, rotated


def near(before, seed, step=0.2):
    """A client's edit after training from `before`: R a step along the manifold, W and b some way off."""
    moved = {name: tensor + step * noise(*tensor.shape, seed=seed) for name, tensor in before.items()}
    R = torch.linalg.qr(moved["R"].mT)
    signs = torch.sign(torch.diagonal(R.R, dim1=-2, dim2=-1)).unsqueeze(-2)
    return moved | {"R": (R.Q * signs).mT.contiguous()}


def test_it_is_the_polar_factor_of_the_mean_r_and_the_mean_of_d_and_not_of_w():
    before = edit(1)
    clients, weights = [near(before, seed, 0.05) for seed in range(3)], [1.0, 2.0, 5.0]
    # Clients already in the coordinates of `before`: turning them is the identity.
    clients = [turned_to(client, before) for client in clients]
    mean = polar_mean(clients, weights, before)
    shares = np.array(weights) / 8
    for layer in range(L):
        U, _, Vt = np.linalg.svd(
            sum(p * c["R"][layer].numpy() for p, c in zip(shares, clients, strict=True)), full_matrices=False
        )
        D = sum(p * (c["W"] - c["R"])[layer].numpy() for p, c in zip(shares, clients, strict=True))
        np.testing.assert_allclose(mean["R"][layer], U @ Vt, atol=1e-12)
        np.testing.assert_allclose((mean["W"] - mean["R"])[layer], D, atol=1e-12)
    assert_orthonormal(mean)


def turned_to(e, target):
    U, _, Vh = torch.linalg.svd(target["R"] @ e["R"].mT)
    Q = U @ Vh
    return {"R": Q @ e["R"], "W": Q @ e["W"], "b": (Q @ e["b"].unsqueeze(-1)).squeeze(-1)}


def test_clients_coordinates_change_nothing_and_identical_clients_are_a_fixed_point():
    before = edit(1)
    clients, weights = [near(before, seed) for seed in range(4)], [1.0, 2.0, 3.0, 4.0]
    mean = polar_mean(clients, weights, before)
    again = polar_mean([rotated(c, seed) for seed, c in enumerate(clients)], weights, before)
    assert distance(again, [dense(mean, layer) for layer in range(L)]) < 1e-12
    same = polar_mean([rotated(clients[0], seed) for seed in range(5)], [1.0] * 5, before)
    assert distance(same, [dense(clients[0], layer) for layer in range(L)]) < 1e-12


@pytest.mark.parametrize("step", [0.02, 0.3, 3.0])
def test_svd_is_never_worse_than_polar_in_the_norm_of_maps(step):
    for seed in range(10):
        before = edit(100 + seed)
        clients, weights = [near(before, 7 * seed + k, step) for k in range(5)], [1.0 + k for k in range(5)]
        target = dense_mean(clients, weights)
        assert distance(svd_mean(clients, weights, before), target) <= distance(
            polar_mean(clients, weights, before), target
        )


def test_it_warns_where_the_clients_rows_cancel_out():
    one = edit(1)
    other = one | {"R": -one["R"] + 0.05 * noise(*one["R"].shape, seed=9)}
    turned_back = {name: tensor.clone() for name, tensor in other.items()}
    with pytest.warns(RuntimeWarning, match="polar: the clients' rows cancel out"):
        # Rows orthogonal to those of `previous` say nothing of where they turned: two such clients cancel.
        previous = one | {"R": torch.linalg.qr(torch.cat([one["R"].mT, noise(L, 10, R_, seed=3)], -1)).Q[..., R_:].mT}
        first = one | {"R": (one["R"] + 1e-3 * previous["R"])}
        second = turned_back | {"R": (-one["R"] + 1e-3 * previous["R"])}
        polar_mean([first, second], [1.0, 1.0], previous)
