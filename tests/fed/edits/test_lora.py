"""PEFT's adapters on the shared base: the formula of LoRA, one or two in force, and a base left as it was."""

from __future__ import annotations

import copy

import pytest
import torch

from fed.communication import costs
from fed.edits.lora import adapted, initial
from fed.randomness import generator

peft = pytest.importorskip("peft")
IDS = torch.tensor([[5, 9, 30, 4, 61, 7]])
TARGETS = {"collective": costs.ATTENTION, "private": costs.QUERY_VALUE}


def logits(base):
    with torch.no_grad():
        return base.model(input_ids=IDS).logits


def drawn(base, kind, seed):
    """Adapter tensors that change something."""
    draw = generator(seed, "adapter")
    shapes = costs.lora_shapes(base.skeleton, TARGETS[kind])
    return {name: 0.2 * torch.randn(shape, generator=draw, dtype=torch.float64) for name, shape in shapes.items()}


def merged(base, *adapters):
    """Logits of a copy whose weights are W + Σ B A."""
    other = copy.deepcopy(base.model)
    modules = dict(other.named_modules())
    for tensors in adapters:
        for name, A in tensors.items():
            if ".lora_A." in name:
                module = modules[name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")]
                module.weight.data += tensors[name.replace("_A.", "_B.")] @ A
    with torch.no_grad():
        return other(input_ids=IDS).logits


def test_adapters_in_force_add_b_a_each_and_others_nothing(tiny64):
    one, two = drawn(tiny64, "collective", 1), drawn(tiny64, "private", 2)
    expected = {
        (): merged(tiny64),
        ("collective",): merged(tiny64, one),
        ("private",): merged(tiny64, two),
        ("collective", "private"): merged(tiny64, one, two),
    }
    assert float((expected["collective", "private"] - expected["private",]).abs().max()) > 1e-2
    with adapted(tiny64, TARGETS, 8, 8) as adapters:
        adapters.fill("collective", one)
        adapters.fill("private", two)
        for names in [*expected, *reversed(expected)]:
            adapters.use(names)
            torch.testing.assert_close(logits(tiny64), expected[names], rtol=0, atol=1e-11)
        for kind, tensors in (("collective", one), ("private", two)):
            kept = adapters.tensors(kind, list(tensors))
            assert list(kept) == list(tensors) and all(torch.equal(kept[n], tensors[n]) for n in tensors)


def test_an_untrained_adapter_changes_nothing_and_its_draw_is_pefts_own(tiny64):
    shapes = costs.lora_shapes(tiny64.skeleton, costs.ATTENTION)
    start = initial(shapes, generator(0, "a"))
    assert all(torch.equal(t, initial(shapes, generator(0, "a"))[name]) for name, t in start.items())
    plain = logits(tiny64)
    with adapted(tiny64, {"collective": costs.ATTENTION}, 8, 8) as adapters:
        own = adapters.tensors("collective", list(shapes))
        adapters.fill("collective", start)
        adapters.use(["collective"])
        assert torch.equal(logits(tiny64), plain)
    for name, tensor in start.items():
        bound = shapes[name][1] ** -0.5
        assert tensor.shape == own[name].shape
        if ".lora_B." in name:
            assert not tensor.any() and not own[name].any()
        else:
            for draw in (tensor, own[name]):
                assert 0.9 * bound < float(draw.abs().max()) <= bound


@pytest.mark.parametrize("fail", [False, True])
def test_the_base_comes_out_as_it_went_in(tiny64, fail, hooks_of):
    before, plain = [(n, type(m)) for n, m in tiny64.model.named_modules()], logits(tiny64)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    try:
        with adapted(tiny64, TARGETS, 8, 8) as adapters:
            adapters.fill("private", drawn(tiny64, "private", 2))
            adapters.use(["private"], trained="private")
            assert {n for n, p in tiny64.model.named_parameters() if p.requires_grad} == {
                n for n, _ in tiny64.model.named_parameters() if ".private." in n
            }
            if fail:
                raise RuntimeError("on purpose")
    except RuntimeError:
        assert fail
    assert [(n, type(m)) for n, m in tiny64.model.named_modules()] == before
    assert torch.equal(logits(tiny64), plain) and hooks_of(tiny64.model) == 0
    assert not any(p.requires_grad for p in tiny64.model.parameters())
    assert torch.equal(torch.rand(2), expected)  # the global generator is where it was


def test_tensors_of_other_names_or_shapes_are_refused(tiny64):
    expected = pytest.raises(ValueError, match="'private' must have its 16 names")
    with adapted(tiny64, TARGETS, 8, 8) as adapters, expected:
        adapters.fill("private", drawn(tiny64, "collective", 1))
