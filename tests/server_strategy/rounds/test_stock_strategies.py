"""Flower's own strategies over users, two rounds of canned replies each."""

from __future__ import annotations

import pytest
import torch

from fed.averages.svd import svd_mean
from server_strategy.grid.nodes import RunError

STEPPING = ("fedavgm", "fedadam", "fedadagrad", "fedyogi")  # they step towards the mean from where they are
OF_MEANS = [(name, "svd") for name in (*STEPPING, "fedprox", "fedavg")]
OF_AVERAGES = [("fedavg", name) for name in ("fedavg", "polar", "median", "krum", "multikrum")]


@pytest.mark.parametrize(("strategy", "average"), [*OF_MEANS, ("fedadam", "fedavg"), *OF_AVERAGES])
def test_stock_strategies_run_over_users(rounds_of, edits, strategy, average):
    ran = rounds_of(strategy, average)
    first = ran.mean(edits, 1)
    second = ran.mean(edits[::-1], 2)
    assert [(row["round"], row["users"], row["failed"]) for row in ran.rows] == [(1, 4, 0), (2, 4, 0)]
    for edit in (first, second):
        assert edit.keys() == ran.start.keys()
        assert any(not torch.equal(edit[name], ran.start[name]) for name in edit)


def test_a_strategy_of_means_takes_ours_and_fedadam_steps_towards_it(rounds_of, edits):
    ours = svd_mean(edits, [1, 1, 1, 1], rounds_of("fedavg", "svd").start)
    for strategy in ("fedavg", "fedprox"):
        mean = rounds_of(strategy, "svd").mean(edits)
        for name, tensor in mean.items():
            torch.testing.assert_close(tensor, ours[name], rtol=1e-6, atol=1e-6)
    ran = rounds_of("fedadam", "svd")
    stepped = ran.mean(edits)
    for name, tensor in stepped.items():
        way, taken = ours[name] - ran.start[name], tensor - ran.start[name]
        far = way.abs() > 0.01
        assert far.any() and bool((taken[far].sign() == way[far].sign()).all())


def test_too_few_replies_for_the_attackers_end_the_run_in_one_line(rounds_of, edits):
    with pytest.raises(RunError, match="round 1: average='krum' with attackers=1 needs at least .* = 5 replies, got 4"):
        rounds_of("fedavg", "krum", attackers=1).mean(edits)
