"""The server's step against rounds worked out by hand, and what it must leave alone."""

import math

import numpy as np
import pytest
import torch

from fed.averages.server_step import ADAPTIVE, STEPPING, ServerStep, rate_of
from tests.fed.averages.test_average import L, assert_orthonormal, dense, distance, edit, noise

BETA, TAU = 0.9, 1e-3


def aligned_mean(start, seed=5, step=0.1):
    """A mean near `start`, in its coordinates."""
    moved = {name: tensor + step * noise(*tensor.shape, seed=seed) for name, tensor in start.items()}
    U, _, Vh = torch.linalg.svd(moved["R"], full_matrices=False)
    return moved | {"R": U @ Vh, "W": U @ Vh + (moved["W"] - moved["R"])}


def by_hand(strategy, ways, rate):
    """x − x₀ after rounds of these ways Δ, number by number."""
    x = m = 0.0
    v = TAU**2
    for way in ways:
        if strategy == "fedavg":
            x += rate * way
        elif strategy == "fedavgm":
            m = BETA * m + way
            x += rate * m
        elif strategy == "fedadagrad":
            v += way**2
            x += rate * way / (math.sqrt(v) + TAU)
        else:
            m = BETA * m + (1 - BETA) * way
            if strategy == "fedadam":
                v = 0.99 * v + 0.01 * way**2
            else:
                v -= 0.01 * way**2 * math.copysign(1.0, v - way**2)
            x += rate * m / (math.sqrt(v) + TAU)
    return x


@pytest.mark.parametrize("strategy", ["fedavg", *STEPPING])
def test_two_rounds_are_those_worked_out_by_hand(strategy):
    step = ServerStep(strategy, rate=0.3, momentum=BETA)
    start = edit(1)
    now, ways = start, []
    for seed in (5, 6):
        mean = aligned_mean(now, seed)
        ways.append({"D": (mean["W"] - mean["R"]) - (now["W"] - now["R"]), "b": mean["b"] - now["b"]})
        R_start, R_mean, before = now["R"], mean["R"], now
        now = step(now, mean)
        if seed == 5:  # R after one round: the same step and its polar factor, or the mean's
            moved = R_mean if strategy in ADAPTIVE else R_start + 0.3 * (R_mean - R_start)
            U, _, Vh = np.linalg.svd(moved.numpy(), full_matrices=False)
            np.testing.assert_allclose(now["R"], U @ Vh, atol=1e-12)
        assert list(now) == ["R", "W", "b"] and not torch.equal(now["W"], before["W"])
        assert_orthonormal(now)
    for name, tensor in (("D", now["W"] - now["R"]), ("b", now["b"])):
        first = (start["W"] - start["R"]) if name == "D" else start["b"]
        for place in (0, -1):
            expected = by_hand(strategy, [way[name].flatten()[place].item() for way in ways], 0.3)
            assert float((tensor - first).flatten()[place]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_a_step_of_fedavg_at_rate_1_is_the_mean_and_halfway_is_between():
    start = edit(1)
    mean = aligned_mean(start)
    whole = ServerStep("fedavg", rate=1.0, momentum=0.0)(start, mean)
    for name in mean:
        torch.testing.assert_close(whole[name], mean[name], rtol=0, atol=1e-12)
    half = ServerStep("fedavg", rate=0.5, momentum=0.0)(start, mean)
    target = [(dense(start, layer) + dense(mean, layer)) / 2 for layer in range(L)]
    assert distance(half, target) < 0.1 < distance(start, target)


@pytest.mark.parametrize("strategy", STEPPING)
def test_a_mean_off_the_manifold_comes_back_to_it(strategy):
    start = edit(1)
    mean = {name: tensor + 0.3 * noise(*tensor.shape, seed=4) for name, tensor in start.items()}
    step = ServerStep(strategy, rate=0.1, momentum=BETA)
    for _ in range(3):
        start = step(start, mean)
        assert_orthonormal(start)


@pytest.mark.parametrize("strategy", STEPPING)
def test_a_round_in_which_nobody_moved_is_a_fixed_point(strategy):
    start = edit(1)
    still = ServerStep(strategy, rate=0.1, momentum=BETA)(start, start)
    for name in start:
        torch.testing.assert_close(still[name], start[name], rtol=0, atol=1e-12)


def test_tensors_that_are_no_edit_are_stepped_entry_by_entry_in_their_dtype():
    start = {"D": torch.zeros(1, 2, 3), "b": torch.zeros(1, 2)}
    mean = {"D": torch.full((1, 2, 3), 0.5), "b": torch.ones(1, 2)}
    step = ServerStep("fedavgm", rate=1.0, momentum=0.5)
    first = step(start, mean)
    second = step(first, {name: tensor + mean[name] for name, tensor in first.items()})
    for name in mean:
        torch.testing.assert_close(first[name], mean[name])
        torch.testing.assert_close(second[name], mean[name] * 2.5)  # 1 + (0.5 · 1 + 1)
        assert second[name].dtype == torch.float32


def test_a_state_that_is_put_back_goes_on_as_if_it_had_not_stopped():
    start = edit(1)
    through, stopped = (ServerStep("fedyogi", rate=0.1, momentum=BETA) for _ in range(2))
    first = through(start, aligned_mean(start))
    stopped(start, aligned_mean(start))
    again = ServerStep("fedyogi", rate=0.1, momentum=BETA)
    again.state = {name: tensor.clone() for name, tensor in stopped.state.items()}
    mean = aligned_mean(first, 6)
    a, b = through(first, mean), again(first, mean)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_the_rate_is_the_runs_or_the_strategys_own():
    assert rate_of("fedadam", 0.0) == 0.01 and rate_of("fedavgm", 0.0) == 1.0 and rate_of("fedyogi", 0.3) == 0.3


def test_an_unknown_strategy_is_refused():
    with pytest.raises(ValueError, match="a server's step must be of fedavg, fedavgm, .*, got 'fedmedian'"):
        ServerStep("fedmedian", rate=1.0, momentum=0.0)
