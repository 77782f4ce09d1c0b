"""What strategies and steps remember goes to disk and back: a strategy made anew goes on bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from fed.averages.server_step import STEPPING
from server_strategy.checkpoint import checkpoint
from server_strategy.checkpoint.checkpoint import Checkpoint
from server_strategy.checkpoint.memory import remembered, remind
from tests.server_strategy.rounds.conftest import rounds_of  # noqa: F401

ALL = [(strategy, "svd") for strategy in (*STEPPING, "fedprox", "fedavg")] + [("fedadam", "fedavg"), ("fedavg", "krum")]


@pytest.mark.parametrize(("strategy", "average"), ALL)
def test_a_strategy_made_anew_goes_on_with_what_it_remembered(rounds_of, edits_by_round, tmp_path, strategy, average):  # noqa: F811
    whole, broken = rounds_of(strategy, average), rounds_of(strategy, average)
    for number in (1, 2):
        whole.start = whole.mean(edits_by_round[number], number)
        broken.start = broken.mean(edits_by_round[number], number)
    tensors, forms = remembered(broken.strategy.remembering)
    checkpoint.write(tmp_path, Checkpoint(2, {}, broken.start, tensors, forms))
    saved = checkpoint.read(tmp_path)
    anew = rounds_of(strategy, average)
    anew.start = saved.edit
    remind(anew.strategy.remembering, saved.memory, saved.forms)
    expected, got = whole.mean(edits_by_round[3], 3), anew.mean(edits_by_round[3], 3)
    assert all(torch.equal(got[name], expected[name]) for name in expected)


@pytest.fixture(scope="module")
def edits_by_round(random_bank):
    """The edits of four users in rounds 1 to 3."""
    return {
        number: [random_bank(1, rank=3, seed=10 * number + n, dtype=torch.float32).tensors(0) for n in range(4)]
        for number in (1, 2, 3)
    }


class Thing:
    """Something with a memory of every kind."""

    def __init__(self) -> None:
        self.rate, self.name, self.nothing, self.empty = 0.1, "x", None, {}


def test_every_kind_of_memory_comes_back_as_it_was_and_settings_stay():
    thing, anew = Thing(), Thing()
    thing.moments = {"edit": np.arange(3.0), "half": np.float32(1.5)}
    thing.momentum = [np.ones(2, np.float32), np.zeros((0,), np.float64)]
    thing.arrays = ArrayRecord({"edit": Array(np.arange(4, dtype=np.float32))})
    thing.latest = {7: {"R": torch.eye(2)}, 9: {"R": torch.zeros(1, dtype=torch.bfloat16)}}
    thing.rate = 0.2
    tensors, forms = remembered([thing, Thing()])
    assert forms[1] == {} and "rate" not in forms[0] and "empty" not in forms[0]
    remind([anew, Thing()], tensors, forms)
    assert anew.rate == 0.1
    assert np.array_equal(anew.moments["edit"], np.arange(3.0)) and anew.moments["half"] == np.float32(1.5)
    assert [a.dtype for a in anew.momentum] == [np.float32, np.float64] and anew.momentum[1].shape == (0,)
    assert np.array_equal(anew.arrays["edit"].numpy(), thing.arrays["edit"].numpy())
    assert list(anew.latest) == [7, 9] and anew.latest[9]["R"].dtype is torch.bfloat16
    thing.latest[7]["R"] += 1  # what is remembered is a copy
    assert torch.equal(anew.latest[7]["R"], torch.eye(2))
