"""Means of edits, checked on the dense d × d maps that the code never forms."""

import numpy as np
import pytest
import torch

from fed.averages.average import average
from fed.averages.entrywise import fedavg
from fed.averages.geometric_median import geometric_median, geometric_weights
from fed.averages.svd import svd_mean

L, R_, D = 2, 3, 10


def noise(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def edit(seed, *, layers=L, r=R_, d=D, scale=0.5):
    R = torch.linalg.qr(noise(layers, d, r, seed=seed)).Q.mT.contiguous()
    return {
        "R": R,
        "W": R + scale * noise(layers, r, d, seed=seed + 1000),
        "b": scale * noise(layers, r, seed=seed + 2000),
    }


def dense(e, layer):
    """[M | c] of one layer as a (d, d + 1) numpy array: v(x) = M x + c."""
    R, W, b = (e[name][layer].double().numpy() for name in ("R", "W", "b"))
    return np.concatenate([R.T @ (W - R), (R.T @ b)[:, None]], axis=1)


def distance(e, target):
    """Relative error of an edit's maps against dense targets, one a layer, over all layers."""
    gaps = sum(np.linalg.norm(dense(e, layer) - t) ** 2 for layer, t in enumerate(target))
    return (gaps / sum(np.linalg.norm(t) ** 2 for t in target)) ** 0.5


def dense_mean(edits, weights):
    shares = np.array(weights) / np.sum(weights)
    return [sum(p * dense(e, layer) for p, e in zip(shares, edits, strict=True)) for layer in range(L)]


def rotated(e, seed):
    """The same edit in other coordinates."""
    Q = torch.linalg.qr(noise(L, R_, R_, seed=seed)).Q
    return {"R": Q @ e["R"], "W": Q @ e["W"], "b": (Q @ e["b"].unsqueeze(-1)).squeeze(-1)}


def truncated(matrix, rank):
    """Eckart-Young: the closest matrix of that rank."""
    U, S, V = np.linalg.svd(matrix)
    return U[:, :rank] @ np.diag(S[:rank]) @ V[:rank]


def assert_orthonormal(e, tolerance=1e-12):
    eye = torch.eye(e["R"].shape[1], dtype=torch.float64)
    torch.testing.assert_close(e["R"] @ e["R"].mT, eye.expand(L, -1, -1), rtol=0, atol=tolerance)


def test_identical_clients_in_other_coordinates_keep_their_map_under_svd_and_lose_it_under_fedavg():
    one = edit(1)
    clients = [rotated(one, seed) for seed in range(8)]
    target = [dense(one, layer) for layer in range(L)]
    for client in clients:
        assert distance(client, target) < 1e-14
    mean = svd_mean(clients, [1.0] * 8)
    assert distance(mean, target) < 1e-12
    assert_orthonormal(mean)
    assert distance(fedavg(clients, [1.0] * 8), target) > 0.3


@pytest.mark.parametrize("clients", [2, 3, 4, 7])  # K r = 6 and 9 < d, 12 and 21 > d
def test_svd_mean_is_the_dense_eckart_young_solution(clients):
    edits, weights = [edit(seed) for seed in range(clients)], [1.0 + seed for seed in range(clients)]
    mean = svd_mean(edits, weights)
    for layer, exact in enumerate(dense_mean(edits, weights)):
        np.testing.assert_allclose(dense(mean, layer), truncated(exact, R_), rtol=0, atol=1e-12)
        assert np.linalg.norm(dense(mean, layer) - exact) > 0.1  # rank r cannot hold the mean: the fit is a real one
    assert_orthonormal(mean)


def test_no_edit_of_the_same_rank_is_closer_to_the_mean_map():
    edits, weights = [edit(seed) for seed in range(4)], [1.0, 2.0, 3.0, 4.0]
    target = dense_mean(edits, weights)
    best = distance(svd_mean(edits, weights), target)
    assert best < distance(fedavg(edits, weights), target)
    mean = svd_mean(edits, weights)
    for seed in range(30):
        near = {name: tensor + 1e-3 * noise(*tensor.shape, seed=seed) for name, tensor in mean.items()}
        assert best < distance(near, target)


def test_a_mean_that_fits_into_the_rank_is_exact():
    """Clients that share R differ in W and b alone: the mean map has rank r."""
    edits = [edit(seed) for seed in range(5)]
    for e in edits[1:]:
        e["W"] = e["W"] - e["R"] + edits[0]["R"]
        e["R"] = edits[0]["R"]
    weights = [1.0, 2.0, 3.0, 4.0, 5.0]
    assert distance(svd_mean(edits, weights), dense_mean(edits, weights)) < 1e-12


@pytest.mark.parametrize("name", ["svd", "fedavg", "polar"])
def test_a_single_client_returns_its_own_map(name):
    one = edit(1)
    target = [dense(one, layer) for layer in range(L)]
    assert distance(average(name, [one], [3.0]), target) < 1e-12
    assert distance(average(name, [one], [3.0], previous=edit(2)), target) < 1e-12


@pytest.mark.parametrize("name", ["svd", "fedavg", "polar"])
def test_weights_are_shares(name):
    a, b, c = edit(1), edit(2), edit(3)
    mean = average(name, [a, b, c], [1.0, 3.0, 0.0])
    doubled = average(name, [a, b, b, b], [7.0] * 4)
    scaled = average(name, [a, b, c], [10.0, 30.0, 0.0])
    target = [dense(mean, layer) for layer in range(L)]
    assert distance(doubled, target) < 1e-12 and distance(scaled, target) < 1e-12
    assert distance(average(name, [a, b, c], [1.0, 1.0, 1.0]), target) > 0.05


@pytest.mark.parametrize("weights", [[], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
@pytest.mark.parametrize("name", ["svd", "fedavg", "polar"])
def test_weights_that_are_no_shares_are_refused_in_one_line(name, weights):
    with pytest.raises(ValueError, match="weights must be finite, not negative, and not all zero") as error:
        average(name, [edit(1), edit(2)][: len(weights)] or [edit(1)], weights)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["svd", "fedavg", "polar"])
def test_a_weight_is_needed_for_each_client(name):
    with pytest.raises(ValueError):
        average(name, [edit(1), edit(2)], [1.0])


def test_untrained_clients_return_the_previous_edit_itself():
    before = edit(1, scale=0.0)
    mean = svd_mean([before, before, before], [1.0, 1.0, 2.0], before)
    assert torch.equal(mean["R"], before["R"]) and torch.equal(mean["W"], before["W"]) and not mean["b"].any()


def test_untrained_clients_without_a_previous_edit_are_an_edit_that_changes_nothing():
    mean = svd_mean([edit(seed, scale=0.0) for seed in range(3)], [1.0] * 3)
    assert distance(mean, [np.ones((D, D + 1))] * L) == pytest.approx(1.0, abs=1e-12)
    assert_orthonormal(mean)


def test_clients_that_moved_in_less_than_the_rank_still_give_orthonormal_rows():
    edits = [edit(seed, scale=0.0) for seed in range(2)]
    for e in edits:
        e["b"][:, 0] = 1.0  # the mean map has rank 1 at most, the edit rank 3
    mean = svd_mean(edits, [1.0, 1.0], edits[0])
    assert distance(mean, dense_mean(edits, [1.0, 1.0])) < 1e-12
    assert_orthonormal(mean)


def test_alignment_changes_coordinates_only_and_brings_r_as_near_to_the_previous_as_rotations_can():
    edits = [edit(seed) for seed in range(4)]
    before = edit(77)
    free, aligned = svd_mean(edits, [1.0] * 4), svd_mean(edits, [1.0] * 4, before)
    assert distance(aligned, [dense(free, layer) for layer in range(L)]) < 1e-12
    assert_orthonormal(aligned)
    best = (aligned["R"] - before["R"]).flatten(1).norm(dim=1)
    assert bool((best < (free["R"] - before["R"]).flatten(1).norm(dim=1)).all())
    for seed in range(100):
        Q = torch.linalg.qr(noise(L, R_, R_, seed=seed)).Q
        assert bool((best < (Q @ free["R"] - before["R"]).flatten(1).norm(dim=1)).all())


def test_clients_that_stay_near_the_previous_edit_keep_its_coordinates():
    before = edit(1)
    clients = [
        {name: tensor + 1e-4 * noise(*tensor.shape, seed=seed) for name, tensor in before.items()} for seed in range(3)
    ]
    mean = svd_mean(clients, [1.0] * 3, before)
    for name in before:
        torch.testing.assert_close(mean[name], before[name], rtol=0, atol=5e-3)


def test_fedavg_is_the_entrywise_mean_and_leaves_the_manifold():
    a, b = edit(1), edit(2)
    mean = fedavg([a, b], [1.0, 3.0])
    assert list(mean) == ["R", "W", "b"]
    for name in a:
        np.testing.assert_allclose(mean[name], 0.25 * a[name].numpy() + 0.75 * b[name].numpy(), rtol=0, atol=1e-15)
    assert float((mean["R"] @ mean["R"].mT - torch.eye(R_)).abs().max()) > 0.1


@pytest.mark.parametrize("name", ["svd", "fedavg", "polar"])
def test_float32_edits_are_averaged_in_float64_and_come_back_as_float32(name):
    edits = [{k: t.float() for k, t in edit(seed).items()} for seed in range(5)]
    mean = average(name, edits, [1.0] * 5, edits[0])
    assert {t.dtype for t in mean.values()} == {torch.float32}
    exact = average(name, [{k: t.double() for k, t in e.items()} for e in edits], [1.0] * 5, edits[0])
    for key in mean:
        assert torch.equal(mean[key], exact[key].float())


def test_an_unknown_average_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="average must be one of svd, fedavg, polar, .*, got 'mean'"):
        average("mean", [edit(1)], [1.0])


def whole(e):
    """An edit's dense maps of all layers as one long vector."""
    return np.concatenate([dense(e, layer).ravel() for layer in range(e["R"].shape[0])])


@pytest.mark.parametrize("clients", [2, 3, 5, 9])
def test_the_geometric_median_is_where_the_unit_vectors_to_all_clients_cancel(clients):
    edits = [edit(seed, scale=0.3 + 0.4 * (seed % 3)) for seed in range(clients)]
    shares = geometric_weights(edits)
    assert sum(shares) == pytest.approx(1.0) and min(shares) > 0
    points = np.stack([whole(e) for e in edits])
    away = points - np.array(shares) @ points
    pull = (away / np.linalg.norm(away, axis=1, keepdims=True)).sum(0)
    assert np.linalg.norm(pull) < 1e-5 * clients


def test_two_thirds_that_agree_outvote_an_outlier_that_drags_the_mean_away():
    one, far = edit(1), edit(2, scale=50.0)
    clients = [rotated(one, seed) for seed in range(2)] + [one, far]
    target = [dense(one, layer) for layer in range(L)]
    assert distance(geometric_median(clients, one), target) < 1e-6
    assert distance(svd_mean(clients, [1.0] * 4), target) > 5
    assert_orthonormal(geometric_median(clients, one))


def test_the_geometric_median_does_not_depend_on_coordinates_or_order():
    edits = [edit(seed) for seed in range(4)]
    turned = [rotated(e, seed) for seed, e in enumerate(edits)][::-1]
    np.testing.assert_allclose(geometric_weights(turned)[::-1], geometric_weights(edits), atol=1e-8)
    np.testing.assert_allclose(whole(geometric_median(turned)), whole(geometric_median(edits)), atol=1e-7)


def test_the_geometric_median_of_edits_that_do_nothing_or_of_one_is_itself():
    nothing = edit(3) | {"b": torch.zeros(L, R_, dtype=torch.float64)}
    nothing["W"] = nothing["R"].clone()
    assert geometric_weights([nothing, nothing]) == [0.5, 0.5]
    np.testing.assert_allclose(whole(geometric_median([nothing, nothing], nothing)), 0, atol=1e-15)
    one = edit(4)
    assert geometric_weights([one]) == [1.0]
    np.testing.assert_allclose(whole(geometric_median([one], one)), whole(one), atol=1e-12)
