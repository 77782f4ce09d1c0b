"""A collective edit that no training makes is refused; a trained one is not."""

import pytest
import torch

from fed.forward.batching import tokenize
from fed.policy.edit_rules import check_edit
from fed.policy.hidden_norms import SENTENCES, hidden_norms, measure
from fed.policy.policy import OPEN, STRICT, PolicyError

LAYERS, NORMS = (1, 2), (3.0, 5.0, 4.0, 6.0)


def spoilt(edit, name, value):
    tensors = {key: tensor.clone() for key, tensor in edit.items()}
    tensors[name].flatten()[-1] = value
    return tensors


@pytest.fixture
def edit(random_bank):
    return random_bank(rank=2, scale=0.1).tensors(0)


def test_a_trained_edit_is_accepted_in_every_wire_dtype_but_a_tenfold_one_is_not(edit):
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        check_edit(STRICT, {name: t.to(dtype).float() for name, t in edit.items()}, LAYERS, NORMS)
    strong = edit | {"W": edit["R"] + 10 * (edit["W"] - edit["R"])}
    with pytest.raises(PolicyError, match=r"\|W - R\| must be at most 4"):
        check_edit(STRICT, strong, LAYERS, NORMS)
    check_edit(OPEN, strong, LAYERS, NORMS)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("R", float("nan"), "must be finite"),
        ("W", float("inf"), "must be finite"),
        ("R", 2.0, "R must be orthonormal within 0.05"),
        ("W", 50.0, r"\|W - R\| must be at most 4"),
        ("b", 1e12, r"\|b\| must be at most 0.25 of the base's hidden-state norm"),
        ("b", 1.2, r"\|b\| must be"),
    ],
)
def test_one_entry_out_of_bounds_is_refused_by_its_rule(edit, name, value, rule):
    edit = edit | {"b": torch.zeros_like(edit["b"])}
    check_edit(STRICT, spoilt(edit, "b", 0.9), LAYERS, NORMS)  # 0.25 of block 2's norm is 1
    with pytest.raises(PolicyError, match=rule) as error:
        check_edit(STRICT, spoilt(edit, name, value), LAYERS, NORMS)
    assert "got" not in error.value.public


def test_the_tensors_of_other_methods_are_bounded_entry_by_entry():
    check_edit(STRICT, {"q.A": torch.ones(2, 3), "q.B": torch.zeros(3, 2)}, LAYERS, NORMS)
    check_edit(STRICT, {}, LAYERS, NORMS)
    for value, rule in ((9.0, "entries must be at most 8"), (float("nan"), "must be finite")):
        with pytest.raises(PolicyError, match=rule):
            check_edit(STRICT, {"q.A": torch.full((2, 3), value)}, LAYERS, NORMS)


def test_hidden_norms_are_those_of_the_blocks_and_are_remembered(tiny32, tiny_base, tmp_path, monkeypatch):
    norms = measure(tiny32)
    assert len(norms) == tiny32.skeleton.layers and all(norm > 0 for norm in norms)
    of_tokens = []  # (blocks but the last, whose states are told after the final norm; tokens but each text's first)
    for row in tokenize([("", sentence) for sentence in SENTENCES], tiny32.tokenizer, 64):
        ids = torch.tensor([[*row.prompt, *row.completion]])
        states = torch.stack(tiny32.model(input_ids=ids, output_hidden_states=True).hidden_states[1:-1])
        of_tokens.append(states[:, 0, 1:].detach().double().norm(dim=-1))
    assert norms[:-1] == pytest.approx(torch.cat(of_tokens, 1).median(1).values.tolist(), rel=1e-6)
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path))
    first = hidden_norms(str(tiny_base), "f" * 16, device="cpu", dtype="float32")
    monkeypatch.setattr("fed.base.model.load", None)
    assert hidden_norms(str(tiny_base), "f" * 16, device="cpu", dtype="float32") == first
