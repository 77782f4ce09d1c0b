"""Bases of random weights: published shapes, real text within the vocabulary, and the same weights every time."""

from __future__ import annotations

import pytest
import torch

from fed.base import random_base
from fed.base.skeleton import PRESETS, skeleton
from fed.base.sources import BaseModelError
from fed.forward.batching import tokenize


def test_the_tiny_one_is_frozen_and_the_same_every_time():
    one, other = (random_base.load("random:tiny", device="cpu", dtype="float32") for _ in range(2))
    assert one.skeleton.layers == random_base.LAYERS and not any(p.requires_grad for p in one.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True))


def test_a_preset_is_made_in_its_shapes_and_dtype_and_reads_text(monkeypatch):
    """llama-2-7b's shapes, narrower: the same field order, a vocabulary smaller than the tokenizer's."""
    small = PRESETS["llama-2-7b"] | {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 4, "num_key_value_heads": 4}
    monkeypatch.setattr(random_base, "PRESETS", {"small": small})
    base = random_base.load("random:small", device="cpu", dtype="bfloat16")
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}
    assert base.model.get_output_embeddings().weight.shape == (32_000, 64)
    (row,) = tokenize([("paraphrase this: honestly, antidisestablishmentarianism", "ok")], base.tokenizer, 64)
    assert len(row) > 5 and max(row.prompt + row.completion) < 32_000
    assert isinstance(base.tokenizer.decode(list(row.prompt)), str)
    logits = base.model(input_ids=torch.tensor([row.prompt])).logits
    assert bool(logits.isfinite().all())


def test_the_preset_of_seven_billion_parameters_has_as_many():
    assert skeleton("llama-2-7b").parameters == 6_738_415_616


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(BaseModelError, match="random:tiny or one of llama-2-7b, .* got 'random:gpt-5'"):
        random_base.load("random:gpt-5")
