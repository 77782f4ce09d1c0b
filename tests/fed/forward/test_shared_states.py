"""Losses of several arms: the same numbers whatever they share, each block computed once for each kind of row."""

from __future__ import annotations

import pytest
import torch

from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.edits.hooks import decoder_blocks
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward.batching import Row
from fed.forward.budget import Budget
from fed.forward.shared_states import portions

ROWS = [Row((5, 9, 11, 4), (7, 8, 0)), Row((6,), (12, 0)), Row((13, 14, 15), (16, 17, 18, 0))]
ARMS = [(None, None), (0, None), (0, 0), (0, 1)]  # base, stage 1, stage 1 + 2, swapped
ASKED = [EditedRow(row, arm) for arm in ARMS for row in ROWS]
ALL = Positions.parse("all")
PLENTY = 1 << 20
A_TOKEN = 32 * 8  # bytes of a state in float64


@pytest.fixture(scope="module")
def stack(random_bank):
    """Collective edits at blocks 1 and 2, private ones at 2 and 3."""
    return EditStack(
        Layer(random_bank(1, layers=(1, 2), seed=1), Positions.parse("f1+l1"), shared=True),
        Layer(random_bank(2, layers=(2, 3), seed=2), ALL),
    )


@pytest.mark.parametrize("limit", [PLENTY, 30 * A_TOKEN, 14 * A_TOKEN])
@pytest.mark.parametrize("tokens", [1000, 9])
def test_losses_of_several_arms_are_the_same_whatever_they_share(tiny64, stack, limit, tokens):
    shared, apart = (losses(tiny64, ASKED, stack, budget=Budget(tokens, of_states)) for of_states in (limit, 0))
    for (nll, count, *_), (expected, expected_count, *_) in zip(shared, apart, strict=True):
        assert count == expected_count and nll == pytest.approx(expected, abs=1e-10)


def test_each_block_reads_each_kind_of_row_once(tiny64, stack):
    """Below the first edit a row is one, below the first private one two kinds, above it all four arms."""
    losses(tiny64, ASKED, stack, budget=Budget(activation_cache=PLENTY))  # what this base's blocks return is asked once
    seen = [0] * 4
    handles = [
        block.register_forward_pre_hook(lambda _m, inputs, i=i: seen.__setitem__(i, seen[i] + len(inputs[0])))
        for i, block in enumerate(decoder_blocks(tiny64.model))
    ]
    finished = []
    try:
        losses(tiny64, ASKED * 2, stack, budget=Budget(activation_cache=PLENTY), on_rows=finished.append)
    finally:
        for handle in handles:
            handle.remove()
    assert seen == [3, 3, 6, 12]  # equal rows under the same edits once
    assert sum(finished) == 2 * len(ASKED)


def test_portions_fit_the_budget_and_hold_all_arms_of_a_row(tiny64, stack):
    arms = [(row.row, row.edits) for row in ASKED]
    room = 3 * A_TOKEN * max(map(len, ROWS))  # a row's states: of one kind at block 1, and of two at block 2
    found = list(portions(tiny64, arms, stack, Budget(100, room)))
    assert [places for places, _ in found] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    for places, known in found:
        assert known.block == 2 and [len(states) for states in known.states] == [len(arms[i][0]) for i in places]
        assert sum({id(states): states.nbytes for states in known.states}.values()) <= room
    assert [places for places, known in portions(tiny64, arms, stack, Budget(100, room - 1)) if known] == [
        [1, 4, 7, 10]
    ]
    assert list(portions(tiny64, arms, stack, Budget(100, 0))) == [([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11], None)]


def test_arms_that_read_the_base_alone_need_no_states(tiny64):
    ((places, known),) = portions(tiny64, [(row, ()) for row in ROWS], EditStack(), Budget(100, PLENTY))
    assert places == [0, 1, 2] and known is None


def test_a_row_in_float32_keeps_its_losses_to_rounding(make_base, stack):
    base, stack32 = make_base("float32"), stack.to(dtype=torch.float32)
    shared, apart = (losses(base, ASKED, stack32, budget=Budget(1000, limit)) for limit in (PLENTY, 0))
    assert [loss.nll for loss in shared] == pytest.approx([loss.nll for loss in apart], rel=1e-5)
