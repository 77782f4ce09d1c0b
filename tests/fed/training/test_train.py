"""Local training: the loss, the optimizer, and that each of many users gets exactly what it gets alone.

The reference is a plain loop for one user: labels of -100 outside the completion, `torch.optim.AdamW`,
`clip_grad_norm_`, autograd through the paper's formula; no padding, no shared batches, nothing of `fed.training.train`
or `fed.edits.hooks`. Its loss is transformers' own, but for being summed in float64 (`ForCausalLMLoss` casts to
float32).
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.edits.stack import BARE, EditStack, Layer
from fed.edits.stiefel import orthogonality_error
from fed.forward.batching import Row, minibatches
from fed.randomness import generator
from fed.training import gradients
from fed.training.optimizer import axes_of
from fed.training.plan import TrainSettings, UserResult, summed_rate
from fed.training.train import train

ALL = Positions.parse("all")


def make_rows(count, seed, *, shortest=3, longest=14):
    draw = torch.Generator().manual_seed(seed)

    def ids(low, high):
        n = int(torch.randint(low, high + 1, (1,), generator=draw))
        return tuple(torch.randint(3, 99, (n,), generator=draw).tolist())

    return [Row(ids(shortest, longest), (*ids(1, 6), 0)) for _ in range(count)]


def copy_of(bank):
    return bank.to(dtype=bank.R.dtype)


def one_user(bank, user):
    return EditBank.from_tensors(bank.shape, [bank.tensors(user)])


def stack_of(bank, positions=ALL):
    return EditStack(Layer(bank, positions))


def row_mask(rule, row):
    p, n = len(row.prompt), len(row)
    if rule == "all":
        return [True] * n
    if rule == "last":
        return [t == p - 1 for t in range(n)]
    assert rule == "f1+l2"
    return [t < p and (t < 1 or t >= p - 2) for t in range(n)]


def loss_of_row(base, row, stages, rule):
    """Summed nll of a row's completion, differentiable in the edits.

    `stages`: (layers, edit) at `rule`, or (layers, edit, a rule of its own).
    """
    handles = []
    for layers, edit, *own in stages:
        mask = torch.tensor(row_mask(*own or [rule], row), dtype=torch.float64).unsqueeze(-1)
        for place, layer in enumerate(layers):
            R, W, b = (edit[name][place] for name in ("R", "W", "b"))

            def hook(_module, _inputs, h, R=R, W=W, b=b, mask=mask):
                return h + mask * ((h @ W.T + b - h @ R.T) @ R)

            handles.append(base.model.model.layers[layer].register_forward_hook(hook))
    try:
        ids = torch.tensor([row.prompt + row.completion])
        labels = torch.tensor((-100,) * len(row.prompt) + row.completion)
        logits = base.model(input_ids=ids, use_cache=False).logits[0]
        return nn.functional.cross_entropy(logits[:-1], labels[1:], ignore_index=-100, reduction="sum")
    finally:
        for handle in handles:
            handle.remove()


def reference_train(base, bank, rows, draw, settings, rule, frozen=()):
    """(step losses, R, W, b) of one user's training, spelled out.

    `frozen`: (bank of one edit, rule) of each layer before the trained one.
    """
    p = {name: tensor[0].clone().requires_grad_() for name, tensor in bank.parameters().items()}
    start = {name: tensor.detach().clone() for name, tensor in p.items()}
    optimizer = torch.optim.AdamW(p.values(), lr=0.0, weight_decay=0.0)
    plan = minibatches(len(rows), settings.batch_size, settings.epochs, draw)
    warm, losses = math.ceil(settings.warmup * len(plan)), []
    stages = [(one.shape.blocks, one.tensors(0), at) for one, at in frozen]
    for step, chosen in enumerate(plan):
        if settings.constant:
            rate = settings.rate
        elif step < warm:
            rate = settings.rate * (step + 1) / (warm + 1)
        else:
            rate = settings.rate * (len(plan) - step) / (len(plan) - warm)
        optimizer.zero_grad()
        tokens = sum(len(rows[i].completion) for i in chosen)
        loss = sum(loss_of_row(base, rows[i], [*stages, (bank.shape.blocks, p)], rule) for i in chosen) / tokens
        losses.append(float(loss.detach()))
        for name in p:
            loss = loss + settings.proximal_mu / 2 * (p[name] - start[name]).square().sum()
        loss.backward()
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(p.values(), settings.clip)
        with torch.no_grad():
            p["W"] -= rate * settings.weight_decay * (p["W"] - p["R"])
            p["b"] -= rate * settings.weight_decay * p["b"]
        optimizer.param_groups[0]["lr"] = rate
        axes = axes_of(p["R"].detach())
        with torch.no_grad():  # R is stepped in random axes
            p["R"].copy_(p["R"] @ axes)
            p["R"].grad.copy_(p["R"].grad @ axes)
        optimizer.step()
        with torch.no_grad():
            p["R"].copy_(p["R"] @ axes.T)
            Q, T = torch.linalg.qr(p["R"].mT)
            p["R"].copy_((Q * torch.sign(torch.diagonal(T, dim1=-2, dim2=-1)).unsqueeze(-2)).mT)
    return losses, {name: tensor.detach() for name, tensor in p.items()}


SETTINGS = TrainSettings(epochs=2, batch_size=3, rate=0.02, warmup=0.3, clip=0.3, weight_decay=0.1, token_budget=30)
ROWS = [make_rows(5, 1), make_rows(2, 2, shortest=10), make_rows(7, 3, longest=5)]
DRAWS = ("a", "b", "c")


@pytest.mark.parametrize(
    ("rule", "changes", "frozen_rule"),
    [
        ("all", {}, "same"),
        ("last", {"clip": 0.0, "token_budget": 10_000}, None),
        ("f1+l2", {"constant": True, "proximal_mu": 0.5, "token_budget": 1}, "same"),
        ("all", {"weight_decay": 0.0, "warmup": 0.0, "clip": 5.0, "batch_size": 16}, None),
        ("last", {}, "all"),
    ],
)
def test_each_of_many_users_gets_what_a_plain_loop_gives_it_alone(tiny64, random_bank, rule, changes, frozen_rule):
    """Different row counts, lengths and numbers of steps; a token budget that splits minibatches."""
    settings = replace(SETTINGS, **changes)
    bank = random_bank(3, seed=4, scale=0.1)
    frozen = random_bank(1, layers=(0, 2), rank=3, seed=9) if frozen_rule else None
    frozen_rule = rule if frozen_rule == "same" else frozen_rule
    begun = [one_user(bank, u) for u in range(3)]
    layers = [Layer(frozen, Positions.parse(frozen_rule), shared=True)] if frozen else []
    stack = EditStack(*layers, Layer(bank, Positions.parse(rule)))
    results = train(tiny64, stack, ROWS, [generator(0, d) for d in DRAWS], settings)
    assert len({r.steps for r in results}) > 1 or settings.batch_size == 16
    for u, result in enumerate(results):
        below = [(frozen, frozen_rule)] if frozen else []
        losses, p = reference_train(tiny64, begun[u], ROWS[u], generator(0, DRAWS[u]), settings, rule, below)
        assert result.error == "" and result.steps == len(losses)
        assert result.rows == settings.epochs * len(ROWS[u])
        assert result.step_losses == pytest.approx(losses, abs=1e-9)
        for name, tensor in bank.tensors(u).items():
            torch.testing.assert_close(tensor, p[name], rtol=0, atol=1e-9)
            assert float((tensor - begun[u].parameters()[name][0]).abs().max()) > 1e-3  # it did train


@pytest.mark.parametrize(("rule", "cache"), [("all", 0), ("last", 0), ("last", 1 << 20)])
def test_a_third_layer_is_another_entry_of_the_stack(tiny64, random_bank, rule, cache):
    """A shared frozen layer, a frozen one with an edit for each user, and the trained one; prefixes read once too."""
    settings = replace(SETTINGS, activation_cache=cache)
    shared, own = random_bank(1, layers=(0, 2), rank=3, seed=9), random_bank(3, layers=(1, 3), seed=8)
    bank = random_bank(3, seed=4, scale=0.1)
    begun = [one_user(bank, u) for u in range(3)]
    layers = [Layer(shared, Positions.parse("all"), shared=True), Layer(own, Positions.parse("f1+l2"))]
    before = own.to()
    stack = EditStack(*layers, Layer(bank, Positions.parse(rule)))
    results = train(tiny64, stack, ROWS, [generator(0, d) for d in DRAWS], settings)
    for u, result in enumerate(results):
        below = [(shared, "all"), (one_user(own, u), "f1+l2")]
        losses, p = reference_train(tiny64, begun[u], ROWS[u], generator(0, DRAWS[u]), settings, rule, below)
        assert result.step_losses == pytest.approx(losses, abs=1e-9)
        for name, tensor in bank.tensors(u).items():
            torch.testing.assert_close(tensor, p[name], rtol=0, atol=1e-9)
    for name, tensor in own.parameters().items():
        assert torch.equal(tensor, before.parameters()[name]) and tensor.grad is None


def test_a_stack_without_a_layer_and_a_frozen_layer_that_misses_a_user_are_refused(tiny64, random_bank):
    draws = [generator(0)] * 3
    with pytest.raises(ValueError, match="needs a stack with a layer to train, got one without layers"):
        train(tiny64, BARE, ROWS, draws, SETTINGS)
    stack = EditStack(Layer(random_bank(2), ALL), Layer(random_bank(3), ALL))
    with pytest.raises(ValueError, match="2 edits need as many row lists and generators, got 3 and 3"):
        train(tiny64, stack, ROWS, draws, SETTINGS)


def test_many_users_in_one_batch_get_what_each_gets_alone(tiny64, random_bank):
    together = random_bank(3, seed=4)
    alone = [one_user(together, u) for u in range(3)]
    found = train(tiny64, stack_of(together), ROWS, [generator(0, d) for d in DRAWS], SETTINGS)
    for u in range(3):
        (result,) = train(tiny64, stack_of(alone[u]), [ROWS[u]], [generator(0, DRAWS[u])], SETTINGS)
        assert found[u].step_losses == pytest.approx(result.step_losses, abs=1e-9)
        assert (found[u].steps, found[u].rows, found[u].step_weights) == (
            result.steps,
            result.rows,
            result.step_weights,
        )
        for name, tensor in alone[u].tensors(0).items():
            torch.testing.assert_close(together.tensors(u)[name], tensor, rtol=0, atol=1e-9)


def test_the_token_budget_splits_a_step_into_forward_passes_of_at_most_that_size(tiny64, random_bank, monkeypatch):
    sizes, whole = [], gradients.completion_nll

    def spy(model, batch, choose):
        sizes.append((batch.size, batch.input_ids.numel()))
        return whole(model, batch, choose)

    monkeypatch.setattr(gradients, "completion_nll", spy)
    train(tiny64, stack_of(random_bank(3)), ROWS, [generator(0, d) for d in DRAWS], replace(SETTINGS, epochs=1))
    assert all(tokens <= 30 or rows == 1 for rows, tokens in sizes)
    assert len(sizes) > 3 and sum(rows for rows, _ in sizes) == 5 + 2 + 7


@pytest.mark.parametrize("pad_token", ["</s>", "<pad>"])
def test_the_loss_of_a_batch_is_transformers_own_loss_over_the_completions(
    tiny64, random_bank, tiny_tokenizer, pad_token
):
    """One user, all rows in one step, and the pad token EOS or not: the final EOS counts, padding does not."""
    base = replace(tiny64, tokenizer=tiny_tokenizer(pad_token=pad_token))
    rows = make_rows(6, 5)
    width = max(map(len, rows))
    ids, labels, attention = (torch.full((6, width), fill) for fill in (0, -100, 0))
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row.prompt + row.completion)
        labels[i, len(row.prompt) : len(row)] = torch.tensor(row.completion)
        attention[i, : len(row)] = 1
    with torch.no_grad():
        own = float(base.model(input_ids=ids, attention_mask=attention, labels=labels).loss)  # in float32
        exact = sum(float(loss_of_row(base, row, [], "all")) for row in rows) / sum(len(r.completion) for r in rows)
    settings = TrainSettings(epochs=1, batch_size=6, rate=1e-3, token_budget=10_000)
    untrained = random_bank(1, scale=0.0)
    untrained.W.copy_(untrained.R)
    (result,) = train(base, stack_of(untrained), [rows], [generator(0)], settings)
    assert result.step_losses == [pytest.approx(own, rel=1e-6)]
    assert result.step_losses == [pytest.approx(exact, abs=1e-12)]
    assert result.step_weights == [6]


@pytest.mark.parametrize(("warmup", "steps"), [(0.1, 20), (0.1, 7), (0.0, 5), (0.5, 9), (1.0, 4), (0.1, 1)])
def test_after_warm_up_the_rate_falls_as_transformers_linear_schedule(warmup, steps):
    warm = math.ceil(warmup * steps)
    parameter = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    schedule = get_linear_schedule_with_warmup(optimizer, warm, steps)
    settings = TrainSettings(epochs=1, batch_size=1, rate=0.5, warmup=warmup)
    found = [settings.rate_at(step, steps) for step in range(steps)]
    for step in range(steps):
        if step >= warm:
            assert found[step] == pytest.approx(schedule.get_last_lr()[0], abs=1e-15)
        optimizer.step()
        schedule.step()
    # no step is wasted: transformers' own first rate is 0, ours rises in even steps to the peak
    rising = [0.5 * (k + 1) / (warm + 1) for k in range(warm)]
    assert found[:warm] == pytest.approx(rising) and all(rate > 0 for rate in found)
    assert warm == steps or found[warm] == 0.5


def test_a_constant_rate_stays_at_the_peak():
    settings = TrainSettings(epochs=1, batch_size=1, rate=0.5, constant=True)
    assert {settings.rate_at(step, 9) for step in range(9)} == {0.5}


def test_the_summed_rate_of_a_step_or_two_is_far_below_a_long_trainings():
    settings = TrainSettings(epochs=1, batch_size=1, rate=0.5, warmup=0.1)
    assert summed_rate(settings, 1) == 0.25  # a lone step is all warm-up
    assert summed_rate(settings, 2) == pytest.approx(0.75)
    assert summed_rate(settings, 1000) == pytest.approx(0.5 * (50 + 450.5))
    assert summed_rate(replace(settings, constant=True), 3) == 1.5


def test_training_lowers_the_loss_and_stays_on_the_manifold_in_float32(tiny32, random_bank):
    bank = random_bank(2, rank=4, scale=0.0, dtype=torch.float32)
    before = bank.R.clone()
    rows = [make_rows(4, 11), make_rows(4, 12)]
    settings = TrainSettings(epochs=15, batch_size=4, rate=0.03, clip=1.0)
    results = train(tiny32, stack_of(bank), rows, [generator(0, u) for u in range(2)], settings)
    for result in results:
        assert result.step_losses[-1] < 0.7 * result.step_losses[0]
    assert orthogonality_error(bank.R) < 1e-5
    assert float((bank.R - before).abs().max()) > 0.01


def test_a_user_whose_loss_is_not_finite_stops_with_a_reason_and_the_others_are_unaffected(tiny64, random_bank):
    bank = random_bank(3, seed=4)
    alone = {u: one_user(bank, u) for u in (0, 2)}
    bank.W[1] = torch.inf
    reasons = train(tiny64, stack_of(bank), ROWS, [generator(0, d) for d in DRAWS], SETTINGS)
    assert "nan" in reasons[1].error and "step 1" in reasons[1].error and "0.02" in reasons[1].error
    assert (reasons[1].steps, reasons[1].rows, reasons[1].step_losses) == (0, 0, [])
    for u, bank_alone in alone.items():
        (result,) = train(tiny64, stack_of(bank_alone), [ROWS[u]], [generator(0, DRAWS[u])], SETTINGS)
        assert reasons[u].error == "" and reasons[u].step_losses == pytest.approx(result.step_losses, abs=1e-9)
        for name, tensor in bank_alone.tensors(0).items():
            torch.testing.assert_close(bank.tensors(u)[name], tensor, rtol=0, atol=1e-9)


def test_training_ends_well_where_the_user_with_the_longest_plan_stops_first(tiny64, random_bank):
    bank = random_bank(3, seed=4)
    bank.W[2] = torch.inf
    results = train(tiny64, stack_of(bank), ROWS, [generator(0, d) for d in DRAWS], SETTINGS)
    assert [result.steps for result in results] == [4, 2, 0] and "nan" in results[2].error
    assert results[0].error == results[1].error == ""


def test_an_absurd_rate_ends_in_an_error_that_names_it_and_raises_nothing(make_base, random_bank):
    base, bank = make_base("float32"), random_bank(2, dtype=torch.float32)
    settings = TrainSettings(epochs=6, batch_size=2, rate=1e30, constant=True)
    results = train(base, stack_of(bank), [make_rows(4, 1), make_rows(6, 2)], [generator(0), generator(1)], settings)
    for result in results:
        assert "a learning rate of 1e+30 is too large" in result.error
        assert 1 <= result.steps < 12 and all(map(math.isfinite, result.step_losses))


def test_the_frozen_collective_edit_does_not_change(tiny64, random_bank):
    frozen, bank = random_bank(1, layers=(1, 3), rank=3), random_bank(3, seed=4)
    before = frozen.tensors(0)
    train(
        tiny64,
        EditStack(Layer(frozen, ALL, shared=True), Layer(bank, ALL)),
        ROWS,
        [generator(0, d) for d in DRAWS],
        SETTINGS,
    )
    for name, tensor in frozen.parameters().items():
        assert torch.equal(tensor[0], before[name])
        assert not tensor.requires_grad and tensor.grad is None


def test_a_user_that_has_finished_keeps_every_bit_while_others_go_on(tiny32, random_bank):
    bank, seen = random_bank(2, rank=4, dtype=torch.float32), []
    results = train(
        tiny32, stack_of(bank), [make_rows(1, 1), make_rows(9, 2)], [generator(0), generator(1)],
        TrainSettings(epochs=1, batch_size=1, rate=0.01), on_step=lambda *_: seen.append(bank.tensors(0)),
    )  # fmt: skip
    assert (results[0].steps, results[1].steps) == (1, 9)
    for name, tensor in bank.tensors(0).items():
        assert torch.equal(tensor, seen[0][name])


def test_gradients_and_hooks_are_gone_afterwards(make_base, random_bank, hooks_of):
    base, bank = make_base("float64"), random_bank(3)
    weights = {name: p.clone() for name, p in base.model.named_parameters()}
    train(base, stack_of(bank), ROWS, [generator(0, d) for d in DRAWS], SETTINGS)
    for tensor in bank.parameters().values():
        assert tensor.grad is None and not tensor.requires_grad
    for name, parameter in base.model.named_parameters():
        assert parameter.grad is None and torch.equal(parameter, weights[name])
    assert hooks_of(base.model) == 0


def test_gradients_and_hooks_are_gone_after_an_exception_too(tiny64, random_bank, hooks_of):
    bank = random_bank(3)

    def fail(*_):
        raise RuntimeError("stopped by the user")

    with pytest.raises(RuntimeError, match="stopped by the user"):
        train(tiny64, stack_of(bank), ROWS, [generator(0, d) for d in DRAWS], SETTINGS, on_step=fail)
    assert all(t.grad is None and not t.requires_grad for t in bank.parameters().values())
    assert hooks_of(tiny64.model) == 0


def test_the_proximal_term_pulls_towards_the_start(tiny64, random_bank):
    def moved(mu):
        bank = random_bank(1, seed=4)
        start = bank.tensors(0)
        settings = TrainSettings(epochs=12, batch_size=5, rate=0.02, clip=0.0, weight_decay=0.0, proximal_mu=mu)
        train(tiny64, stack_of(bank), [ROWS[0]], [generator(0)], settings)
        return math.sqrt(sum(float((t - start[name]).square().sum()) for name, t in bank.tensors(0).items()))

    free, pulled, held = moved(0.0), moved(1.0), moved(100.0)
    assert held < 0.8 * pulled < 0.8 * free


def test_weight_decay_pulls_to_the_identity_edit(tiny64, random_bank):
    """So strong that a step undoes the edit: W must arrive at R, not at zero, but for one step of Adam's."""
    bank = random_bank(1, scale=1.0)
    settings = TrainSettings(epochs=1, batch_size=5, rate=1e-4, constant=True, weight_decay=1e4)
    train(tiny64, stack_of(bank), [ROWS[0]], [generator(0)], settings)
    assert float((bank.W - bank.R).abs().max()) < 5e-4 and float(bank.b.abs().max()) < 5e-4
    assert float(bank.W.norm()) > 1


def test_progress_names_the_step_and_the_mean_loss_over_the_users_in_it(tiny64, random_bank):
    seen = []
    results = train(
        tiny64, stack_of(random_bank(3)), ROWS, [generator(0, d) for d in DRAWS], SETTINGS,
        on_step=lambda *values: seen.append(values),
    )  # fmt: skip
    steps = max(result.steps for result in results)
    assert [(step, of) for step, of, _ in seen] == [(k + 1, steps) for k in range(steps)]
    for k, (_, _, loss) in enumerate(seen):
        own = [result.step_losses[k] for result in results if k < result.steps]
        assert loss == pytest.approx(sum(own) / len(own), abs=1e-12)


def test_mean_losses_weigh_steps_by_their_rows():
    result = UserResult(4, 14, [1.0, 2.0, 3.0, 5.0], [5, 2, 5, 2])
    assert result.mean_loss == pytest.approx((5 * 1 + 2 * 2 + 5 * 3 + 2 * 5) / 14)
    assert result.epoch_losses(2) == pytest.approx([(5 + 4) / 7, (15 + 10) / 7])
    assert UserResult().epoch_losses(2) == []


def test_users_rows_and_generators_must_pair_up(tiny64, random_bank):
    with pytest.raises(ValueError, match="3 edits need as many row lists and generators"):
        train(tiny64, stack_of(random_bank(3)), ROWS[:2], [generator(0)] * 3, SETTINGS)
    with pytest.raises(ValueError, match="3 edits need as many row lists and generators"):
        train(tiny64, stack_of(random_bank(3)), ROWS, [generator(0)] * 2, SETTINGS)


def test_a_user_without_rows_is_refused_before_anything_happens(tiny64, random_bank, hooks_of):
    bank = random_bank(2)
    with pytest.raises(ValueError, match="user number 1 has no rows to train on"):
        train(tiny64, stack_of(bank), [ROWS[0], []], [generator(0), generator(1)], SETTINGS)
    assert not bank.R.requires_grad and hooks_of(tiny64.model) == 0
