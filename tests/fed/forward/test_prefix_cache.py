"""Prefixes that no trained edit touches: the same training as without, from the first touched token on."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward import prefix_cache
from fed.forward.activation_cache import CACHE
from fed.forward.batching import Row
from fed.forward.hidden_states import at_block
from fed.randomness import generator
from fed.training.plan import TrainSettings
from fed.training.train import train

ROWS = [Row((5, 9, 11, 4, 3, 8), (7, 8, 0)), Row((6,), (12, 0)), Row((13, 14, 15, 2, 9), (16, 17, 18, 0))]
PLENTY = 1 << 20
ALL = Positions.parse("all")


@pytest.mark.parametrize(
    ("positions", "expected"),
    [("all", [0, 0, 0]), ("prompt", [0, 0, 0]), ("f1+l2", [0, 0, 0]), ("f2", [0, 0, 0]), ("l2", [4, 0, 3])]
    + [("last", [5, 0, 4]), ("answer", [5, 0, 4]), ("l9", [1, 0, 1])],
)
def test_the_prefix_is_what_lies_before_every_edited_token(positions, expected):
    rule = Positions.parse(positions)
    assert prefix_cache.lengths(ROWS, rule) == expected
    for row, count in zip(ROWS, expected, strict=True):
        prompt = torch.tensor([[True] * len(row.prompt) + [False] * len(row.completion)])
        edited = [*rule.mask(prompt, torch.ones_like(prompt))[0].tolist(), True].index(True)
        edited = min(edited, len(row.prompt) - 1)  # what follows a prompt is read off its last token
        assert count == (edited if not (rule.first or rule.everywhere) else 0)


@pytest.mark.parametrize("positions", ["l2", "last", "answer", "all-f3"])
@pytest.mark.parametrize("frozen_at", [None, "all", "l3", "f2+l1"])
@pytest.mark.parametrize("budget", [1000, 12])
def test_training_gives_the_same_edits_with_and_without(
    tiny64, random_bank, hooks_of, monkeypatch, positions, frozen_at, budget
):
    rows = [ROWS, ROWS[::-1][:2]]
    passes = []
    handle = tiny64.model.register_forward_pre_hook(
        lambda _model, _args, given: passes.append(given["input_ids"].numel()), with_kwargs=True
    )

    def trained(reads):
        CACHE.clear()
        passes.clear()
        monkeypatch.setattr(prefix_cache, "WORTH", 0.25 if reads else 2.0)
        bank = random_bank(2, seed=3)
        plan = TrainSettings(epochs=4, batch_size=2, rate=0.02, activation_cache=PLENTY, token_budget=budget)
        frozen = [Layer(random_bank(1, seed=9), Positions.parse(frozen_at), shared=True)] if frozen_at else []
        stack = EditStack(*frozen, Layer(bank, Positions.parse(positions)))
        results = train(tiny64, stack, rows, [generator(0, u) for u in "ab"], plan)
        return bank, [result.step_losses for result in results], sum(passes)

    try:
        (with_it, losses, fewer), (without, expected, more) = trained(True), trained(False)
    finally:
        handle.remove()
        CACHE.clear()
    for name, tensor in without.parameters().items():
        assert not torch.equal(tensor, random_bank(2, seed=3).parameters()[name])
        torch.testing.assert_close(with_it.parameters()[name], tensor, rtol=0, atol=1e-9)
    for own, other in zip(losses, expected, strict=True):
        assert own == pytest.approx(other, rel=1e-10)
    assert fewer < more  # tokens that went through the model, those that are read once among them
    assert hooks_of(tiny64.model) == 0


def test_what_is_read_is_what_a_whole_pass_keeps(tiny64, random_bank):
    from transformers import DynamicCache

    states = at_block(tiny64, ROWS, 1, 1000)
    found = prefix_cache.read(tiny64, ROWS, EditStack(Layer(random_bank(1), Positions.parse("l1"))), states, 8)
    assert [prefix.tokens for prefix in found] == [5, 0, 4]
    for row, prefix in zip(ROWS, found, strict=True):
        if not prefix.tokens:
            continue
        cache = DynamicCache(config=tiny64.model.config)
        tiny64.model(input_ids=torch.tensor([row.prompt]), past_key_values=cache, use_cache=True)
        assert len(prefix.blocks) == tiny64.skeleton.layers - 2
        for (keys, values), layer in zip(prefix.blocks, cache.layers[2:], strict=True):
            torch.testing.assert_close(keys, layer.keys[0, :, : prefix.tokens], rtol=0, atol=1e-12)
            torch.testing.assert_close(values, layer.values[0, :, : prefix.tokens], rtol=0, atol=1e-12)
        kept = sum(t.nbytes for pair in prefix.blocks for t in pair)
        assert kept == prefix_cache.bytes_of(tiny64, prefix.tokens, 1)


def test_short_prefixes_and_bases_with_sliding_windows_are_left_alone(tiny64):
    last = Positions.parse("last")
    assert prefix_cache.worth_it(tiny64, [ROWS], last)
    assert not prefix_cache.worth_it(tiny64, [[Row((5, 6), (1, 2, 3, 4, 0))]], last)
    assert not prefix_cache.worth_it(tiny64, [ROWS], ALL)
    model = deepcopy(tiny64.model)
    model.config.sliding_window, model.config.layer_types = 4, ["sliding_attention"] * tiny64.skeleton.layers
    assert not prefix_cache.worth_it(replace(tiny64, model=model), [ROWS], last)


def test_nothing_is_read_where_it_would_not_fit(tiny64, random_bank, monkeypatch):
    def never(*_, **__):
        raise AssertionError("read")

    monkeypatch.setattr(prefix_cache, "read", never)
    states = sum(len(row) for row in ROWS) * 32 * 8
    for limit in (0, states + 8):
        CACHE.clear()
        plan = TrainSettings(epochs=1, batch_size=2, rate=0.02, activation_cache=limit)
        stack = EditStack(Layer(random_bank(1, seed=3), Positions.parse("last")))
        train(tiny64, stack, [ROWS], [generator(0, "a")], plan)
    CACHE.clear()
