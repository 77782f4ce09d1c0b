"""Hidden states below the first trained edit: the same numbers as a whole pass gives, computed once, within a limit."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fed.edits.hooks import decoder_blocks
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward.activation_cache import ActivationCache
from fed.forward.batching import Row, pad
from fed.forward.hidden_states import at_block
from fed.forward.resumed import resumed, stacked
from fed.randomness import generator
from fed.training.plan import TrainSettings
from fed.training.train import train

ROWS = [Row((5, 9, 11, 4), (7, 8, 0)), Row((6,), (12, 0)), Row((13, 14, 15), (16, 17, 18, 0))]
ALL = Positions.parse("all")
PLENTY = 1 << 20


def logits(base, batch):
    return base.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, position_ids=batch.position_ids
    ).logits


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("budget", [1000, 7])
def test_a_pass_that_resumes_gives_the_logits_of_a_whole_one(tiny64, hooks_of, first, budget):
    batch = pad(ROWS, 0, "cpu")
    whole = logits(tiny64, batch)
    states = at_block(tiny64, ROWS, first, budget)
    assert [tuple(s.shape) for s in states] == [(len(row), 32) for row in ROWS]
    blocks = list(decoder_blocks(tiny64.model))
    with resumed(tiny64.model, first) as give:
        give(stacked(states))
        again = logits(tiny64, batch)
    for i, row in enumerate(ROWS):
        torch.testing.assert_close(again[i, : len(row)], whole[i, : len(row)], rtol=0, atol=1e-12)
    assert list(decoder_blocks(tiny64.model)) == blocks and hooks_of(tiny64.model) == 0


def test_the_blocks_come_back_after_an_exception(tiny64):
    blocks = list(decoder_blocks(tiny64.model))
    with pytest.raises(RuntimeError, match="inside"), resumed(tiny64.model, 2):
        raise RuntimeError("inside")
    assert list(decoder_blocks(tiny64.model)) == blocks


def test_a_stand_in_answers_for_its_block(tiny64):
    block = decoder_blocks(tiny64.model)[0]
    with resumed(tiny64.model, 1):
        assert decoder_blocks(tiny64.model)[0].self_attn is block.self_attn


def test_blocks_that_return_a_tuple_are_not_cached(tiny64):
    handle = decoder_blocks(tiny64.model)[1].register_forward_hook(lambda _m, _i, output: (output,))
    try:
        assert ActivationCache().of(replace(tiny64, name="tuples"), [ROWS], 1, 100, PLENTY) is None
    finally:
        handle.remove()


@pytest.mark.parametrize("frozen", [False, True])
def test_training_gives_the_same_edits_with_and_without(tiny64, random_bank, frozen):
    rows = [ROWS, ROWS[::-1][:2]]

    def trained(limit):
        bank = random_bank(2, seed=3)
        plan = TrainSettings(epochs=3, batch_size=2, rate=0.02, activation_cache=limit)
        collective = [Layer(random_bank(1, seed=9), ALL, shared=True)] if frozen else []
        stack = EditStack(*collective, Layer(bank, ALL))
        results = train(tiny64, stack, rows, [generator(0, u) for u in "ab"], plan)
        return bank, [result.step_losses for result in results]

    (with_it, losses), (without, expected) = trained(PLENTY), trained(0)
    for name, tensor in without.parameters().items():
        torch.testing.assert_close(with_it.parameters()[name], tensor, rtol=0, atol=1e-9)
    assert losses[0] == pytest.approx(expected[0], abs=1e-10)


def test_the_frozen_blocks_see_each_row_once_whatever_the_epochs(tiny64, random_bank, monkeypatch):
    monkeypatch.setattr("fed.training.gradients.CACHE", ActivationCache())
    first = min(random_bank(1).shape.blocks)
    seen = {"below": 0, "above": 0}
    blocks = decoder_blocks(tiny64.model)
    handles = [
        blocks[i].register_forward_pre_hook(lambda _m, inputs, k=key: seen.__setitem__(k, seen[k] + len(inputs[0])))
        for key, i in (("below", 0), ("above", first + 1))
    ]
    try:
        for _ in range(2):  # a later round of the same user
            plan = TrainSettings(epochs=4, batch_size=2, rate=0.01, activation_cache=PLENTY)
            train(tiny64, EditStack(Layer(random_bank(1), ALL)), [ROWS], [generator(0)], plan)
    finally:
        for handle in handles:
            handle.remove()
    assert seen == {"below": len(ROWS), "above": 2 * 4 * len(ROWS)}


def test_private_layers_above_collective_ones_train_the_same_and_resume_at_their_own_first_block(
    tiny64, random_bank, monkeypatch
):
    """Collective edits at 0 and 2, another of each user at 1, private ones at 2 and 3: blocks 0 to 2 see a row once."""
    monkeypatch.setattr("fed.training.gradients.CACHE", ActivationCache())
    ActivationCache().of(tiny64, [ROWS], 2, 100, PLENTY)  # what this base's blocks return is asked once
    rows, epochs, seen = [ROWS, ROWS[::-1][:2]], 3, [0] * 4
    shared, group = random_bank(1, layers=(0, 2), seed=9), random_bank(2, layers=(1,), seed=8)

    def trained(limit):
        seen[:] = [0] * 4
        bank = random_bank(2, layers=(2, 3), seed=3)
        plan = TrainSettings(epochs, batch_size=2, rate=0.02, activation_cache=limit)
        stack = EditStack(Layer(shared, Positions.parse("f2+l1"), shared=True), Layer(group, ALL), Layer(bank, ALL))
        results = train(tiny64, stack, rows, [generator(0, u) for u in "ab"], plan)
        return bank, [loss for result in results for loss in result.step_losses], list(seen)

    def count(block):
        return lambda _module, inputs: seen.__setitem__(block, seen[block] + len(inputs[0]))

    handles = [block.register_forward_pre_hook(count(i)) for i, block in enumerate(decoder_blocks(tiny64.model))]
    try:
        (with_it, losses, few), (without, expected, many) = trained(PLENTY), trained(0)
    finally:
        for handle in handles:
            handle.remove()
    for name, tensor in without.parameters().items():
        torch.testing.assert_close(with_it.parameters()[name], tensor, rtol=0, atol=1e-9)
    assert losses == pytest.approx(expected, abs=1e-10)
    count_of_rows = sum(map(len, rows))
    assert many == [epochs * count_of_rows] * 4
    assert few == [count_of_rows] * 3 + [epochs * count_of_rows]


def test_states_under_other_frozen_edits_are_others(tiny64, random_bank):
    """Kept for one collective edit, they do not stand in for another's, for other positions, or for the bare base's."""
    cache, below = ActivationCache(), random_bank(1, layers=(0, 3), seed=1)
    stacks = [
        EditStack(),
        EditStack(Layer(below, ALL, shared=True)),
        EditStack(Layer(random_bank(1, layers=(0, 3), seed=2), ALL, shared=True)),
        EditStack(Layer(below, Positions.parse("l1"), shared=True)),
    ]
    states = [cache.of(tiny64, [ROWS], 2, 100, PLENTY, stack)[0][0] for stack in stacks]
    for i, of_one in enumerate(states):
        assert all(not torch.equal(of_one, of_other) for of_other in states[i + 1 :])
    above = random_bank(1, layers=(2, 3), seed=1)  # changes nothing below
    assert cache.of(tiny64, [ROWS], 2, 100, PLENTY, EditStack(Layer(above, ALL, shared=True)))[0][0] is states[0]


def test_a_call_that_does_not_fit_is_not_cached_and_the_oldest_user_makes_room(tiny64):
    width = 32 * 8
    size = sum(len(row) for row in ROWS) * width
    cache = ActivationCache()
    assert cache.of(tiny64, [ROWS], 1, 100, size - 1) is None
    first = cache.of(tiny64, [ROWS], 1, 100, size)[0]
    assert cache.of(tiny64, [ROWS], 1, 100, size)[0] is first
    other = [Row(row.completion, row.prompt) for row in ROWS]
    cache.of(tiny64, [other], 1, 100, size)
    assert cache.of(tiny64, [ROWS], 1, 100, size)[0] is not first


def test_what_a_users_states_are_does_not_depend_on_what_was_kept(tiny32):
    """Bit for bit, though this base's products round a row by the size of its batch."""
    other = [Row(row.completion, row.prompt) for row in ROWS]
    cold = ActivationCache().of(tiny32, [ROWS], 1, 100, PLENTY)[0]
    warm = ActivationCache()
    warm.of(tiny32, [other, ROWS[:1]], 1, 100, PLENTY)
    found = warm.of(tiny32, [other, ROWS], 1, 100, PLENTY)[1]
    assert all(torch.equal(a, b) for a, b in zip(cold, found, strict=True))
