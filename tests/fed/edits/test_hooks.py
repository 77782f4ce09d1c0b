"""Edits attached to a model: where they act, in which order, on which rows, and that nothing stays behind."""

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from fed.edits.hooks import AttachedLayer, EditSession, decoder_blocks, edited

IDS = torch.tensor([[5, 9, 40, 7, 3, 61], [8, 8, 12, 90, 44, 2]])


def block_outputs(base, run):
    """The output of each decoder block as the next one sees it, and the logits."""
    seen = {}
    handles = [
        layer.register_forward_pre_hook(lambda _m, inputs, i=i: seen.__setitem__(i - 1, inputs[0].detach().clone()))
        for i, layer in enumerate(base.model.model.layers)
    ]
    try:
        with torch.no_grad():
            seen["logits"] = run(input_ids=IDS).logits
    finally:
        for handle in handles:
            handle.remove()
    return seen


def by_hand(h, R, W, b):
    return torch.stack([torch.stack([x + R.T @ (W @ x + b - R @ x) for x in row]) for row in h])


def everywhere(session):
    session.gather()
    session.set_masks([torch.ones_like(IDS, dtype=torch.bool)] * len(session.layers))


def test_two_layers_compose_as_the_second_after_the_first_at_the_block_output(tiny64, random_bank):
    first, second = random_bank(1, layers=(1,)), random_bank(2, layers=(1,), rank=3, seed=1)
    plain = block_outputs(tiny64, tiny64.model)
    with edited(tiny64.model, [AttachedLayer(first), AttachedLayer(second, torch.tensor([1, 0]))]) as session:
        everywhere(session)
        both = block_outputs(tiny64, tiny64.model)
    assert torch.equal(both[0], plain[0])
    inner = by_hand(plain[1], first.R[0, 0], first.W[0, 0], first.b[0, 0])
    for row, user in enumerate([1, 0]):
        R, W, b = second.R[user, 0], second.W[user, 0], second.b[user, 0]
        torch.testing.assert_close(both[1][row : row + 1], by_hand(inner[row : row + 1], R, W, b), rtol=0, atol=1e-12)
    swapped = by_hand(by_hand(plain[1][:1], second.R[1, 0], second.W[1, 0], second.b[1, 0]), *(
        t[0, 0] for t in (first.R, first.W, first.b)
    ))  # fmt: skip
    assert float((both[1][:1] - swapped).abs().max()) > 1e-3  # the order matters here


def test_each_layer_has_its_own_edit_and_other_layers_have_none(tiny64, random_bank, reference_logits):
    bank = random_bank(1, layers=(0, 3))
    with edited(tiny64.model, [AttachedLayer(bank)]) as session:
        assert session.blocks == [0, 3]
        everywhere(session)
        found = block_outputs(tiny64, tiny64.model)
    plain = block_outputs(tiny64, tiny64.model)
    expected = by_hand(plain[0], bank.R[0, 0], bank.W[0, 0], bank.b[0, 0])
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)
    for row in range(2):
        alone = reference_logits(tiny64, IDS[row].tolist(), [(bank, 0, [True] * 6)])
        torch.testing.assert_close(found["logits"][row], alone, rtol=0, atol=1e-11)


def test_rows_that_are_not_active_and_positions_outside_the_mask_are_not_edited(tiny64, random_bank, reference_logits):
    shared, own = random_bank(1, layers=(2,)), random_bank(2, layers=(1, 2), seed=1)
    mask = torch.tensor([[True, True, False, False, True, False], [False, True, True, False, False, True]])
    for collective in ([True, True], [True, False], [False, True], [False, False]):
        for private in ([True, True], [False, True]):
            with edited(tiny64.model, [AttachedLayer(shared), AttachedLayer(own)]) as session:
                actives = [torch.tensor(collective), torch.tensor(private)]
                session.set_rows([None, torch.tensor([0, 1])], actives)
                session.gather()
                session.set_masks([mask] * len(session.layers))
                with torch.no_grad():
                    logits = tiny64.model(input_ids=IDS).logits
            for row in range(2):
                edits = [(shared, 0, mask[row].tolist())] * collective[row] + [
                    (own, row, mask[row].tolist())
                ] * private[row]
                expected = reference_logits(tiny64, IDS[row].tolist(), edits)
                torch.testing.assert_close(logits[row], expected, rtol=0, atol=1e-11)


def test_rows_that_are_not_active_are_not_edited_without_a_mask_either(tiny64, random_bank):
    session = EditSession([AttachedLayer(random_bank(1, layers=(1,)), None, torch.tensor([True, False]))])
    session.gather()
    h = torch.randn(2, 3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    out = session.apply(1, h)
    assert not torch.equal(out[0], h[0])
    assert torch.equal(out[1], h[1])


def test_new_rows_take_effect_and_stale_ones_cannot_be_used(tiny64, random_bank):
    bank = random_bank(2, layers=(1,))
    h = torch.randn(1, 3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    session = EditSession([AttachedLayer(bank, torch.tensor([0]))])
    session.gather()
    before = session.apply(1, h)
    session.set_rows([torch.tensor([1])], [None])
    with pytest.raises(KeyError):
        session.apply(1, h)
    session.gather()
    assert not torch.equal(session.apply(1, h), before)


def test_the_model_is_clean_after_the_context(tiny32, random_bank, hooks_of):
    with edited(tiny32.model, [AttachedLayer(random_bank(1)), AttachedLayer(random_bank(1, seed=1))]):
        assert hooks_of(tiny32.model) == 2  # one a block, whatever the number of layers
    assert hooks_of(tiny32.model) == 0


def test_the_model_is_clean_after_an_exception_inside(tiny64, random_bank, hooks_of):
    with torch.no_grad():
        plain = tiny64.model(input_ids=IDS).logits
    with (
        pytest.raises(RuntimeError, match="inside"),
        edited(tiny64.model, [AttachedLayer(random_bank(1))]) as session,
    ):
        everywhere(session)
        with torch.no_grad():
            assert not torch.equal(tiny64.model(input_ids=IDS).logits, plain)
        raise RuntimeError("inside")
    assert hooks_of(tiny64.model) == 0
    with torch.no_grad():
        assert torch.equal(tiny64.model(input_ids=IDS).logits, plain)


@pytest.mark.parametrize("layer", [-1, 4])
def test_a_layer_that_the_model_has_not_is_refused_and_leaves_it_clean(tiny32, random_bank, hooks_of, layer):
    with pytest.raises(ValueError, match=rf"layers must lie in 0\.\.3 for this base model, got {layer}"):  # noqa: SIM117
        with edited(tiny32.model, [AttachedLayer(random_bank(1, layers=sorted((1, layer))))]):
            pytest.fail("the context was entered")
    assert hooks_of(tiny32.model) == 0


def test_an_attach_that_fails_halfway_leaves_the_model_clean(tiny32, random_bank, hooks_of, monkeypatch):
    def fail(*_args, **_kwargs):
        raise RuntimeError("no more hooks")

    monkeypatch.setattr(decoder_blocks(tiny32.model)[2], "register_forward_hook", fail)
    with pytest.raises(RuntimeError, match="no more hooks"), edited(tiny32.model, [AttachedLayer(random_bank(1))]):
        pytest.fail("the context was entered")
    assert hooks_of(tiny32.model) == 0


def test_a_block_that_returns_a_tuple_keeps_what_follows_the_hidden_state(random_bank):
    class Block(nn.Module):
        def forward(self, x):
            return x, "kept"

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = type("Config", (), {"num_hidden_layers": 2})
            self.layers = nn.ModuleList([Block(), Block()])

    model, bank = Model(), random_bank(1, layers=(1,))
    h = torch.randn(1, 3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with edited(model, [AttachedLayer(bank)]) as session:
        session.gather()
        out, extra = model.layers[1](h)
    assert extra == "kept"
    torch.testing.assert_close(out, by_hand(h, bank.R[0, 0], bank.W[0, 0], bank.b[0, 0]), rtol=0, atol=1e-13)


def test_the_decoder_blocks_of_another_architecture_are_found(tiny32):
    gpt = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=3, n_head=2, vocab_size=10, n_positions=8))
    assert decoder_blocks(gpt) is gpt.transformer.h
    assert decoder_blocks(tiny32.model) is tiny32.model.model.layers


def test_a_model_without_decoder_blocks_is_refused():
    model = nn.Linear(2, 2)
    model.config = type("Config", (), {"num_hidden_layers": 3})
    with pytest.raises(ValueError, match="Linear has no list of 3 decoder blocks"):
        decoder_blocks(model)
