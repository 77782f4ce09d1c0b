"""Robust means: of maps and not of entries, right against dense references, and unmoved by users who lie."""

import numpy as np
import pytest
import torch

from fed.averages.average import average
from fed.averages.lora_svd import lora_svd_mean
from fed.averages.robust import ADAPTERS, EDITS, NEEDS, krum_order, one_after_the_other, robust_mean
from tests.fed.averages.test_average import R_, L, assert_orthonormal, dense, distance, edit, noise, rotated, truncated

NAMES = tuple(NEEDS)


def around(centre, seed, scale=0.05):
    return {name: tensor + scale * noise(*tensor.shape, seed=seed) for name, tensor in centre.items()} | {
        "R": torch.linalg.qr((centre["R"] + scale * noise(*centre["R"].shape, seed=seed)).mT).Q.mT.contiguous()
    }


def honest_and_liars(count, liars):
    """Clients near one another as maps, each in coordinates of its own; the last ones send something far away."""
    centre = edit(1)
    D, R = centre["W"] - centre["R"], centre["R"]
    clients = []
    for seed in range(count - liars):
        step = {name: tensor + 0.05 * noise(*tensor.shape, seed=seed) for name, tensor in centre.items()}
        step["R"] = R
        step["W"] = R + D + 0.05 * noise(*D.shape, seed=seed)
        clients.append(rotated(step, seed))
    far = [{"R": R, "W": R - 30 * D, "b": -30 * centre["b"]} for _ in range(liars)]
    return clients + far, [dense(centre, layer) for layer in range(L)]


def lora(seed, r=2, out=7, into=6, modules=2):
    return {
        f"m{m}.lora_{half}.weight": noise(*shape, seed=seed + 10 * m + (half == "B"))
        for m in range(modules)
        for half, shape in (("A", (r, into)), ("B", (out, r)))
    }


def lora_maps(adapter):
    return [(adapter[k.replace("lora_A", "lora_B")] @ adapter[k]).numpy() for k in adapter if "lora_A" in k]


def replies_for(name, attackers):
    times, plus = NEEDS[name]
    return times * attackers + plus


@pytest.mark.parametrize("name", NAMES)
def test_liars_who_drag_the_mean_away_do_not_move_it(name):
    clients, target = honest_and_liars(11, 2)
    mean = average(name, clients, [1.0] * 9 + [1e12] * 2, clients[0], attackers=2)
    assert distance(mean, target) < 0.3
    assert_orthonormal(mean)
    assert distance(average("svd", clients, [1.0] * 11, clients[0]), target) > 3


@pytest.mark.parametrize("name", NAMES)
def test_neither_the_clients_coordinates_nor_their_weights_matter(name):
    clients = [edit(seed) for seed in range(11)]
    mean = average(name, clients, [1.0] * 11, clients[0], attackers=2)
    turned = [rotated(c, seed) for seed, c in enumerate(clients)]
    again = average(name, turned, [5.0 + k for k in range(11)], clients[0], attackers=2)
    assert distance(again, [dense(mean, layer) for layer in range(L)]) < 1e-7


@pytest.mark.parametrize("name", NAMES)
def test_identical_clients_are_a_fixed_point(name):
    one = edit(1)
    mean = average(name, [rotated(one, seed) for seed in range(7)], [1.0] * 7, one, attackers=1)
    assert distance(mean, [dense(one, layer) for layer in range(L)]) < 1e-7
    nothing = edit(3, scale=0.0) | {"b": torch.zeros(L, R_, dtype=torch.float64)}
    still = average(name, [nothing] * 7, [1.0] * 7, nothing, attackers=1)
    for key in nothing:
        torch.testing.assert_close(still[key], nothing[key], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_fewer_replies_than_the_attackers_allow_are_refused_with_the_number(name):
    needed = replies_for(name, 2)
    clients = [edit(seed) for seed in range(needed)]
    average(name, clients, [1.0] * needed, clients[0], attackers=2)
    with pytest.raises(ValueError, match=rf"attackers=2 needs at least .* = {needed} replies, got {needed - 1}"):
        average(name, clients[1:], [1.0] * (needed - 1), clients[0], attackers=2)


def test_krum_is_the_client_with_the_least_distances_to_its_nearest():
    clients = [edit(seed, scale=0.2 + 0.1 * seed) for seed in range(7)]
    points = np.stack([np.concatenate([dense(c, layer).ravel() for layer in range(L)]) for c in clients])
    squares = ((points[:, None] - points[None]) ** 2).sum(-1)
    scores = [np.sort(np.delete(row, i))[: 7 - 2 - 2].sum() for i, row in enumerate(squares)]
    assert krum_order(EDITS.inner_products(clients), 2) == list(np.argsort(scores))
    krum = average("krum", clients, [1.0] * 7, clients[0], attackers=2)
    assert distance(krum, [dense(clients[int(np.argmin(scores))], layer) for layer in range(L)]) < 1e-12
    best = [clients[i] for i in np.argsort(scores)[:5]]
    several = average("multikrum", clients, [1.0] * 7, clients[0], attackers=2)
    for layer in range(L):
        mean = sum(dense(c, layer) for c in best) / 5
        np.testing.assert_allclose(dense(several, layer), truncated(mean, R_), atol=1e-12)


def principal(maps):
    """The axes by numpy: left ones of the maps side by side, right ones of them on top of each other."""
    U = np.linalg.svd(np.concatenate(maps, 1))[0]
    V = np.linalg.svd(np.concatenate(maps, 0))[2].T
    return U, V


@pytest.mark.parametrize("name", ["trimmed", "bulyan"])
def test_coordinate_rules_work_in_the_principal_axes_of_the_dense_maps(name):
    count, f = 7, 1
    clients = [edit(seed) for seed in range(count)]
    members = (
        clients if name == "trimmed" else [clients[i] for i in one_after_the_other(EDITS.inner_products(clients), f)]
    )
    mean = average(name, clients, [1.0] * count, clients[0], attackers=f)
    for layer in range(L):
        maps = [dense(c, layer) for c in members]
        U, V = principal(maps)
        C = np.stack([U.T @ M @ V for M in maps])
        if name == "trimmed":
            kept = np.sort(C, axis=0)[f:-f]
        else:
            order = np.argsort(np.abs(C - np.median(C, axis=0)), axis=0)[: count - 4 * f]
            kept = np.take_along_axis(C, order, axis=0)
        np.testing.assert_allclose(dense(mean, layer), truncated(U @ kept.mean(0) @ V.T, R_), atol=1e-9)


def test_bulyan_picks_by_krum_one_after_the_other():
    clients = [edit(seed, scale=0.2 + 0.1 * seed) for seed in range(7)]
    G = EDITS.inner_products(clients)
    left, members = list(range(7)), []
    for _ in range(5):
        part = torch.tensor(left)
        members.append(left.pop(krum_order(G[part][:, part], 1)[0]))
    assert one_after_the_other(G, 1) == sorted(members) and len(members) == 5


@pytest.mark.parametrize("name", NAMES)
def test_adapters_are_compared_as_maps_too(name):
    clients = [lora(100 * k) for k in range(7)]
    mean = robust_mean(name, clients, 1, clients[0], ADAPTERS)
    turned = []
    for k, client in enumerate(clients):
        G = noise(2, 2, seed=k) + 3 * torch.eye(2, dtype=torch.float64)
        turned.append({n: G @ t if "lora_A" in n else t @ torch.linalg.inv(G) for n, t in client.items()})
    again = robust_mean(name, turned, 1, clients[0], ADAPTERS)
    for a, b in zip(lora_maps(mean), lora_maps(again), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    if name == "krum":
        points = np.stack([np.concatenate([M.ravel() for M in lora_maps(c)]) for c in clients])
        squares = ((points[:, None] - points[None]) ** 2).sum(-1)
        best = int(np.argmin([np.sort(np.delete(row, i))[:4].sum() for i, row in enumerate(squares)]))
        chosen = lora_svd_mean([clients[best]], [1.0], clients[0])
        assert all(torch.equal(mean[key], chosen[key]) for key in mean)
