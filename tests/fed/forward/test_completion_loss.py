"""The loss from logits at completion tokens alone: transformers' own, fused or not, and its gradient."""

import pytest
import torch

from fed.forward import completion_loss
from fed.forward.batching import Row, pad
from fed.forward.completion_loss import completion_nll, logits_only_where


def make_rows(count, seed):
    draw = torch.Generator().manual_seed(seed)

    def ids(low, high):
        n = int(torch.randint(low, high + 1, (1,), generator=draw))
        return tuple(torch.randint(3, 99, (n,), generator=draw).tolist())

    return [Row(ids(3, 14), (*ids(1, 6), 0)) for _ in range(count)]


@pytest.mark.parametrize("fused", [False, True])
def test_each_completion_token_has_its_own_likelihood_and_row(tiny64, fused):
    rows = make_rows(4, 6)
    with torch.no_grad(), logits_only_where(tiny64.model, fused=fused) as choose:
        nll, row = completion_nll(tiny64.model, pad(rows, 0, "cpu"), choose)
    expected, numbers = [], []
    for i, one in enumerate(rows):
        with torch.no_grad():
            log_p = tiny64.model(input_ids=torch.tensor([one.prompt + one.completion])).logits[0].log_softmax(-1)
        for k, token in enumerate(one.completion):
            expected.append(-float(log_p[len(one.prompt) + k - 1, token]))
            numbers.append(i)
    assert nll.tolist() == pytest.approx(expected, abs=1e-11) and row.tolist() == numbers


@pytest.mark.parametrize("kind", ["llama", "another"])
def test_the_last_block_is_computed_at_labels_alone_and_losses_and_gradients_stay(make_base, hooks_of, kind):
    """Of a base whose blocks' form is not known it is computed whole."""
    base = make_base("float64")
    base.model.config.model_type = kind
    batch, found, seen = pad(make_rows(4, 6), 0, "cpu"), [], []
    last, shift = base.model.model.layers[-1], torch.zeros(32, dtype=torch.float64, requires_grad=True)
    count = last.mlp.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].shape[:-1].numel()))
    moved = base.model.model.layers[0].register_forward_hook(lambda _module, _inputs, output: output + shift)
    for whole in (True, False):
        with logits_only_where(base.model, whole_block=whole) as choose:
            nll, _ = completion_nll(base.model, batch, choose)
        nll.sum().backward()
        found.append((nll.detach(), shift.grad.clone()))
        shift.grad = None
    count.remove()
    moved.remove()
    labels = int(batch.labels.sum())
    assert seen == [batch.input_ids.numel(), labels if kind == "llama" else batch.input_ids.numel()]
    for whole, thin in zip(*found, strict=True):
        torch.testing.assert_close(thin, whole, rtol=0, atol=1e-12)
    assert base.model.model.layers[-1] is last and hooks_of(base.model) == 0


def test_a_bfloat16_base_gives_float32_losses(make_base):
    base, wide = make_base("bfloat16"), make_base("float32")
    batch = pad(make_rows(3, 7), 0, "cpu")
    with torch.no_grad(), logits_only_where(base.model) as choose:
        narrow, _ = completion_nll(base.model, batch, choose)
    with torch.no_grad(), logits_only_where(wide.model) as choose:
        exact, _ = completion_nll(wide.model, batch, choose)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, exact, rtol=0.1, atol=0.2)


def test_logits_are_computed_only_where_chosen_in_row_major_order(tiny64, hooks_of):
    ids = torch.tensor([[5, 9, 40, 7], [8, 8, 12, 90]])
    mask = torch.tensor([[False, True, False, True], [True, False, False, False]])
    with torch.no_grad():
        full = tiny64.model(input_ids=ids).logits
        with logits_only_where(tiny64.model, fused=False) as choose:
            choose(mask)
            few = tiny64.model(input_ids=ids).logits
            choose(~mask)
            rest = tiny64.model(input_ids=ids).logits
        torch.testing.assert_close(few, full[mask].unsqueeze(0), rtol=0, atol=1e-13)
        assert rest.shape == (1, 5, full.shape[-1])
        assert torch.equal(tiny64.model(input_ids=ids).logits, full)
    assert hooks_of(tiny64.model) == 0


def test_logits_are_whole_again_after_an_exception(tiny64, hooks_of):
    with pytest.raises(RuntimeError, match="inside"), logits_only_where(tiny64.model):
        assert hooks_of(tiny64.model) == 1
        raise RuntimeError("inside")
    assert hooks_of(tiny64.model) == 0


@pytest.mark.parametrize(("at_once", "in_cache"), [(512, 1 << 20), (512, 300), (5, 250), (1, 1)])
def test_the_fused_loss_has_the_gradient_of_cross_entropy(tiny64, monkeypatch, at_once, in_cache):
    """However many labels are multiplied, and however many of their logits are normalized, at one time."""
    monkeypatch.setattr(completion_loss, "_AT_ONCE", at_once)
    monkeypatch.setattr(completion_loss, "_IN_CACHE", in_cache)
    batch = pad(make_rows(4, 6), 0, "cpu")
    weight = torch.linspace(-1, 2, int(batch.labels.sum()), dtype=torch.float64)
    found = []
    for fused in (True, False):
        moved = torch.zeros(1, 1, 32, dtype=torch.float64, requires_grad=True)
        handle = tiny64.model.model.norm.register_forward_hook(lambda _m, _i, out, by=moved: out + by)
        try:
            with logits_only_where(tiny64.model, fused=fused) as choose:
                nll, _ = completion_nll(tiny64.model, batch, choose)
                (nll * weight).sum().backward()
        finally:
            handle.remove()
        found.append((nll.detach(), moved.grad))
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)


def test_how_many_logits_are_normalized_at_one_time_changes_no_bit(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 24, generator=draw).bfloat16() for n in (70, 1000))
    targets, found = torch.randint(0, 1000, (70,), generator=draw), []
    for in_cache in (1 << 20, 7000, 1):
        monkeypatch.setattr(completion_loss, "_IN_CACHE", in_cache)
        leaf = hidden.clone().requires_grad_()
        nll = completion_loss._Nll.apply(leaf, weight, targets, True)
        nll.sum().backward()
        found.append((nll.detach(), leaf.grad))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_only_heads_that_make_the_logits_alone_are_fused(tiny64, monkeypatch):
    with logits_only_where(tiny64.model) as choose:
        assert choose.fused
    monkeypatch.setattr(tiny64.model.config, "model_type", "gemma2")  # caps its logits
    with logits_only_where(tiny64.model) as choose:
        assert not choose.fused


def test_fused_whole_logits_are_never_made(tiny64):
    with torch.no_grad(), logits_only_where(tiny64.model) as choose:
        choose(torch.ones(2, 3, dtype=torch.bool))
        assert tiny64.model(input_ids=torch.tensor([[5, 6, 7], [8, 9, 10]])).logits.numel() == 0
        assert choose.hidden.shape == (6, 32)
    assert choose.hidden is None
