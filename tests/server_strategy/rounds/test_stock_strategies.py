"""Flower's own strategies over users, two rounds of canned replies each."""

from __future__ import annotations

import pytest
import torch

from fed.averages.server_step import STEPPING
from fed.averages.svd import svd_mean
from server_strategy.grid.nodes import RunError
from server_strategy.rounds.strategy import TooFewReplies

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


@pytest.mark.parametrize("strategy", STEPPING)
def test_a_run_with_a_steps_name_takes_the_step_worked_out_by_hand(rounds_of, edits, strategy):
    ran = rounds_of(strategy, "svd", server_lr=0.3, momentum=0.5)
    mean = svd_mean(edits, [1, 1, 1, 1], ran.start)
    stepped = ran.mean(edits)
    way = (mean["b"] - ran.start["b"]).double()
    tau = 1e-3
    expected = {
        "fedavgm": 0.3 * way,
        "fedadam": 0.3 * 0.5 * way / ((0.99 * tau**2 + 0.01 * way**2).sqrt() + tau),
        "fedadagrad": 0.3 * way / ((tau**2 + way**2).sqrt() + tau),
        "fedyogi": 0.3 * 0.5 * way / ((tau**2 - 0.01 * way**2 * torch.sign(tau**2 - way**2)).sqrt() + tau),
    }[strategy]
    torch.testing.assert_close((stepped["b"] - ran.start["b"]).double(), expected, rtol=1e-5, atol=1e-6)
    assert ran.rows[0]["orthogonality_error"] < 1e-6


def test_fedavg_takes_the_mean_and_a_server_lr_only_part_of_the_way(rounds_of, edits):
    ran = rounds_of("fedavg", "svd")
    mean = svd_mean(edits, [1, 1, 1, 1], ran.start)
    whole, half = ran.mean(edits), rounds_of("fedavg", "svd", server_lr=0.5).mean(edits)
    for name in mean:
        torch.testing.assert_close(whole[name], mean[name], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(half["b"] - ran.start["b"], (mean["b"] - ran.start["b"]) / 2, rtol=1e-5, atol=1e-6)


def test_fedprox_tells_every_user_how_hard_to_pull_and_fedavg_nobody(rounds_of):
    messages = rounds_of("fedprox", "svd", proximal_mu=0.25).messages()
    assert [message.content["config"]["proximal-mu"] for message in messages] == [0.25] * 4
    assert all("proximal-mu" not in message.content["config"] for message in rounds_of("fedavg", "svd").messages())


def test_a_step_that_ends_past_all_numbers_ends_the_run_before_it_is_broadcast(rounds_of, edits):
    ran = rounds_of("fedavg", "svd", server_lr=1e39)
    with pytest.raises(RunError, match="round 1: the stepped edit is not finite; lower server-lr"):
        ran.mean(edits)
    assert ran.rows == []


def test_too_few_replies_for_the_attackers_are_too_few_for_the_round_in_one_line(rounds_of, edits):
    line = "round 1: average='krum' with attackers=1 needs at least .* = 5 replies, got 4"
    with pytest.raises(TooFewReplies, match=line):
        rounds_of("fedavg", "krum", attackers=1).mean(edits)
