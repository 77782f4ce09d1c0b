"""Users' edits against each other: what is far above the median is left out and named, whatever coordinates hide it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from server_strategy.rounds.screened import Screened
from server_strategy.screening.sizes import outside, sizes


def made_map(edit):
    """[M | c] of all layers, flat: M = Rᵀ(W − R), c = Rᵀ b."""
    R, W, b = (edit[name].double() for name in ("R", "W", "b"))
    return torch.cat([(R.mT @ (W - R)).flatten(), (b.unsqueeze(-2) @ R).flatten()])


def turned(edit, seed):
    """The same map in other coordinates."""
    r = edit["R"].shape[-2]
    Q = torch.linalg.qr(torch.randn(r, r, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).Q
    return {
        "R": Q @ edit["R"].double(),
        "W": Q @ edit["W"].double(),
        "b": (Q @ edit["b"].double().unsqueeze(-1)).squeeze(-1),
    }


def test_the_size_of_a_map_is_that_of_the_map_made_and_the_same_in_all_coordinates(edits):
    for edit in edits[1:]:
        made = float((made_map(edit) - made_map(edits[0])).norm())
        assert sizes(edit, edits[0])["map"] == pytest.approx(made, rel=1e-6)
        assert sizes(turned(edit, 5), edits[0])["map"] == pytest.approx(made, rel=1e-5)
    entries = math.sqrt(sum(float((edits[1][n] - edits[0][n]).double().square().sum()) for n in edits[0]))
    assert sizes(edits[1], edits[0])["entries"] == pytest.approx(entries, rel=1e-6)


def test_the_size_of_an_adapter_is_that_of_the_product():
    draw = torch.Generator().manual_seed(0)

    def adapters():
        shapes = {
            "q.lora_A.weight": (2, 6),
            "q.lora_B.weight": (5, 2),
            "v.lora_A.weight": (2, 6),
            "v.lora_B.weight": (3, 2),
        }
        return {name: torch.randn(shape, generator=draw) for name, shape in shapes.items()}

    edit, start = adapters(), adapters()

    def product(adapter, module):
        return adapter[f"{module}.lora_B.weight"] @ adapter[f"{module}.lora_A.weight"]

    made = [product(edit, module) - product(start, module) for module in "qv"]
    expected = math.sqrt(sum(float(product.double().square().sum()) for product in made))
    assert sizes(edit, start)["map"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("factor", [1e3, 1e30, math.inf, math.nan])
def test_a_change_far_above_the_median_is_left_out_and_named(rounds_of, edits, factor):
    lines = []
    ran = rounds_of("fedavg", "svd", on_user=lambda *said: lines.append(said))
    lied = {name: tensor * factor for name, tensor in edits[2].items()}
    without = rounds_of("fedavg", "svd").mean([edits[0], edits[1], None, edits[3]])
    mean = ran.mean([edits[0], edits[1], lied, edits[3]])
    assert all(torch.equal(mean[name], without[name]) for name in mean)
    ((number, user, line, left_out),) = lines
    assert (number, user, left_out) == (1, 3, True) and "norm-bound = 10 times the round's median" in line


def test_honest_edits_are_averaged_as_they_are_and_a_bound_of_0_leaves_all_in(rounds_of, edits):
    lied = [edits[0], edits[1], {name: tensor * 1e3 for name, tensor in edits[2].items()}, edits[3]]
    assert outside(edits, edits[0], 10.0) == {} and outside(lied, edits[0], 0.0) == {}
    assert set(outside(lied, edits[0], 10.0)) == {2}
    lines = []
    rounds_of("fedavg", "svd", on_user=lambda *said: lines.append(said)).mean(edits)
    rounds_of("fedavg", "svd", on_user=lambda *said: lines.append(said), norm_bound=0.0).mean(lied)
    assert lines == []


def test_one_user_with_most_of_the_weight_is_told_and_stays(rounds_of, edits):
    lines = []
    ran = rounds_of("fedavg", "svd", on_user=lambda *said: lines.append(said))
    ran.mean(edits, examples=(1, 1, 9, 1))
    assert lines == [(1, 3, "it has 75% of the round's weight", False)]


@given(
    scale=st.floats(0, 1e6, allow_nan=False),
    seed=st.integers(0, 1000),
    weights=st.lists(st.integers(1, 10**6), min_size=5, max_size=5),
)
def test_whatever_one_user_sends_the_mean_moves_no_further_than_the_bound(scale, seed, weights):
    draw = torch.Generator().manual_seed(seed)
    start = {"R": torch.eye(2, 6).unsqueeze(0), "W": torch.eye(2, 6).unsqueeze(0), "b": torch.zeros(1, 2)}
    sizes_of_users = [1.0] * 4 + [scale]
    users = [
        {name: tensor + size * torch.randn(tensor.shape, generator=draw) for name, tensor in start.items()}
        for size in sizes_of_users
    ]
    left = [place for place in range(5) if place not in outside(users, start, 3.0)]
    total = sum(weights[place] for place in left)
    mean = {n: sum(weights[p] / total * (users[p][n] - start[n]).double() for p in left) for n in start}
    moved = math.sqrt(sum(float(t.square().sum()) for t in mean.values()))
    honest = sorted(sizes(user, start)["entries"] for user in users[:4])
    assert moved <= 3.0 * honest[-1] * (1 + 1e-6)


def test_a_method_that_keeps_own_edits_never_keeps_one_that_was_left_out(rounds_of, edits):
    ran = rounds_of("fedavg", "svd", method="fedreft")
    ran.mean([edits[0], edits[1], {n: t * 1e3 for n, t in edits[2].items()}, edits[3]])
    assert isinstance(ran.strategy._steps[0], Screened)
    assert set(ran.strategy._steps[1]._latest) == {1, 2, 4}


def test_where_most_changed_nothing_no_change_of_the_others_is_in_bound(edits):
    start, moved = edits[0], edits[1]
    reasons = outside([start, start, start, moved], start, bound=10)
    assert list(reasons) == [3] and "infinitely many times" in reasons[3]
    assert outside([start, moved], start, bound=10) == {} and outside([start] * 3, start, bound=10) == {}
