"""Our LoReFT edit and our training against pyreft 0.1.0's: values, gradients, loss curves, a clean base.

References: pyreft's `LoreftIntervention` and its formula in `pyreft/interventions.py`, h + Rᵀ(Wh + b − Rh).
The base is a random Llama made from a config; its output projection is scaled up so that edits of hidden
states can lower the loss.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fed.base.model import BaseModel
from fed.edits.loreft import EditBank, EditShape, loreft
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.edits.stiefel import orthogonality_error, random_rows
from fed.forward.batching import Row
from fed.randomness import generator
from fed.training import pyreft_engine
from fed.training import train as training
from fed.training.plan import TrainSettings

pyreft = pytest.importorskip("pyreft")

D, VOCABULARY = 32, 97
RULES = ("all", "prompt", "last", "f2+l2")
SHAPE = EditShape((1, 3), 4, D)


def tiny_base(dtype: torch.dtype = torch.float32) -> BaseModel:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=D,
            intermediate_size=64,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
        model: nn.Module = LlamaForCausalLM(config)
    with torch.no_grad():
        model.get_parameter("lm_head.weight").mul_(12)
    model = model.to(dtype).eval().requires_grad_(False)
    tokenizer = SimpleNamespace(pad_token_id=None, eos_token_id=1)
    return BaseModel("tiny", model, tokenizer, str(dtype).removeprefix("torch."), "cpu", "")


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return tiny_base()


def draw(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high, (), generator=g))


def some_rows(count: int = 20) -> list[Row]:
    """Prompts of 5 to 11 random tokens; completions that count upwards, of 3 to 6 tokens."""
    g = generator(0, "rows")
    rows = []
    for _ in range(count):
        prompt, completion = draw(g, 5, 12), draw(g, 2, 6)
        ids = torch.randint(2, VOCABULARY, (prompt,), generator=g).tolist()
        rows.append(Row(tuple(ids), (*range(7, 7 + completion), 1)))
    return rows


def moved_bank(shape: EditShape, seed: int, size: float = 0.3) -> EditBank:
    """An edit that changes something, so that a missing or misplaced one shows."""
    bank, g = EditBank.identity(shape, [generator(seed)]), generator(seed, "moved")
    bank.W += size * torch.randn(bank.W.shape, generator=g)
    bank.b += size * torch.randn(bank.b.shape, generator=g)
    return bank


def settings(**changes: Any) -> TrainSettings:
    return TrainSettings(**{"epochs": 4, "batch_size": 4, "rate": 2e-3} | changes)


def stack_of(bank: EditBank, rule: str = "all", frozen: EditBank | None = None) -> EditStack:
    """The bank to train at the rule's positions, over the frozen edit at the same ones."""
    where = Positions.parse(rule)
    below = [] if frozen is None else [Layer(frozen, where, shared=True)]
    return EditStack(*below, Layer(bank, where))


def both(base: BaseModel, bank: EditBank, rule: str = "all", **changes: Any) -> list[tuple[Tensor, EditBank]]:
    """(loss of each step, trained bank) of our training and of pyreft's, from the same start."""
    frozen = changes.pop("frozen", None)
    outcomes = []
    for train in (training.train, pyreft_engine.train):
        own = bank.to()
        (result,) = train(base, stack_of(own, rule, frozen), [some_rows()], [generator(2)], settings(**changes))
        assert not result.error
        outcomes.append((torch.tensor(result.step_losses, dtype=torch.float64), own))
    return outcomes


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Equal to a few float32 roundings of the largest number."""
    ours, theirs = ours.detach(), theirs.detach()
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(float(theirs.abs().max()), 1.0)


@pytest.mark.parametrize("seed", range(8))
def test_the_edit_and_its_gradients_are_pyrefts_to_rounding(seed: int) -> None:
    g = generator(seed, "shapes")
    B, T, d = draw(g, 1, 5), draw(g, 1, 9), draw(g, 6, 65)
    r = draw(g, 1, min(d, 9))
    W, b, h = (torch.randn(size, generator=g) for size in ((r, d), (r,), (B, T, d)))
    upstream = torch.randn(B, T, d, generator=g)
    theirs = pyreft_engine.intervention(pyreft, random_rows((r, d), g), W, b)
    X = theirs.rotate_layer.parametrizations.weight.original
    with torch.no_grad():  # away from X's start, where its derivative is simplest
        X += 0.2 * torch.randn(X.shape, generator=g).tril(-1)
    R = theirs.rotate_layer.weight.detach().mT.contiguous()

    leaves = {}
    for name in ("ours", "formula", "pyreft"):
        leaves[name] = [t.clone().requires_grad_() for t in (h, R, W, b)]
    outputs = {"ours": loreft(*leaves["ours"])}
    h_, R_, W_, b_ = leaves["formula"]
    outputs["formula"] = h_ + (h_ @ W_.mT + b_ - h_ @ R_.mT) @ R_
    outputs["pyreft"] = theirs(leaves["pyreft"][0])
    for output in outputs.values():
        assert_close(output, outputs["formula"])
        (output * upstream).sum().backward()

    gradients = {name: [t.grad for t in tensors if t.grad is not None] for name, tensors in leaves.items()}
    for ours, formula in zip(gradients["ours"], gradients["formula"], strict=True):
        assert_close(ours, formula)
    grad_h, grad_R, grad_W, grad_b = gradients["ours"]
    assert_close(grad_h, gradients["pyreft"][0])
    assert_close(grad_W, theirs.learned_source.weight.grad)
    assert_close(grad_b, theirs.learned_source.bias.grad)
    (through_X,) = torch.autograd.grad(theirs.rotate_layer.weight, X, grad_R.mT)
    assert_close(through_X, X.grad)


def test_an_intervention_gives_back_the_edit_that_it_was_given() -> None:
    R, W, b = random_rows((4, D), generator(0)), torch.randn(4, D), torch.randn(4)
    made = pyreft_engine.intervention(pyreft, R, W, b)
    assert_close(made.rotate_layer.weight.mT, R)
    assert torch.equal(made.learned_source.weight, W) and torch.equal(made.learned_source.bias, b)
    assert made.learned_source.weight.dtype == torch.float32  # pyreft's own default is bf16


@pytest.mark.parametrize("stage", (1, 2))
@pytest.mark.parametrize("rule", (*RULES, "all-f1"))
def test_pyreft_starts_at_our_loss_and_its_curve_stays_within_three_percent(
    base: BaseModel, rule: str, stage: int
) -> None:
    frozen = moved_bank(EditShape((0, 1), 3, D), 5) if stage == 2 else None  # block 1 carries both
    (ours, _), (theirs, trained) = both(base, EditBank.identity(SHAPE, [generator(1)]), rule, frozen=frozen)
    assert len(ours) == 20 and abs(ours[0] - theirs[0]) < 1e-5
    assert ours[-4:].mean() < 0.97 * ours[0]  # it learns, so that 3 % is a small part of what happens
    assert float(((ours - theirs) / ours).abs().max()) < 0.03
    assert orthogonality_error(trained.R) < 1e-5


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("token_budget", (1024, 24))
def test_after_one_step_W_and_b_are_ours(base: BaseModel, rule: str, token_budget: int) -> None:
    plan = {"epochs": 1, "batch_size": 20, "weight_decay": 0.0, "token_budget": token_budget}
    frozen = moved_bank(SHAPE, 5)
    (_, ours), (_, theirs) = both(base, moved_bank(SHAPE, 1), rule, frozen=frozen, **plan)
    assert_close(ours.W, theirs.W)
    assert_close(ours.b, theirs.b)
    turned, also_turned = (float((bank.R - moved_bank(SHAPE, 1).R).norm()) for bank in (ours, theirs))
    assert 0.8 < also_turned / turned < 1.25  # R's coordinates differ, its speed does not


def test_the_frozen_edit_comes_before_pyrefts_at_the_same_block(base: BaseModel) -> None:
    one, other = moved_bank(SHAPE, 1), moved_bank(SHAPE, 5)
    (ours, _), (theirs, _) = both(base, one, frozen=other, epochs=1)
    (swapped, _), _ = both(base, other, frozen=one, epochs=1)
    assert abs(ours[0] - theirs[0]) < 1e-5
    assert abs(ours[0] - swapped[0]) > 1e-2
    assert torch.equal(other.W, moved_bank(SHAPE, 5).W)


def test_a_proximal_pull_acts_on_both_engines_alike(base: BaseModel) -> None:
    start = EditBank.identity(SHAPE, [generator(1)])
    (ours, near), (theirs, also_near) = both(base, start, proximal_mu=10.0, clip=0)
    (_, far), _ = both(base, start, clip=0)
    assert float(((ours - theirs) / ours).abs().max()) < 0.03
    for pulled, free in ((near.W, far.W), (also_near.W, far.W), (near.R, far.R), (also_near.R, far.R)):
        begun = start.W if free is far.W else start.R
        assert (pulled - begun).norm() < 0.7 * (free - begun).norm()


def test_pyreft_trains_a_float32_edit_on_a_bfloat16_base() -> None:
    (ours, _), (theirs, trained) = both(tiny_base(torch.bfloat16), moved_bank(SHAPE, 1))
    assert trained.W.dtype == torch.float32
    assert float(((ours - theirs) / ours).abs().max()) < 0.03


def test_two_runs_agree_bit_for_bit_and_leave_the_global_generator_alone(base: BaseModel) -> None:
    before = torch.get_rng_state()
    first, second = (both(base, moved_bank(SHAPE, 1), epochs=1)[1] for _ in range(2))
    assert torch.equal(first[0], second[0]) and torch.equal(first[1].R, second[1].R)
    assert torch.equal(torch.get_rng_state(), before)


def assert_clean(model: nn.Module, hooks: int = 0) -> None:
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == hooks
    assert sum(len(m._forward_hooks_with_kwargs) for m in model.modules()) == 0
    assert not any(p.requires_grad for p in model.parameters())
    assert not any(m.training for m in model.modules())


def test_the_base_is_left_clean_after_training_and_after_an_exception(
    base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(**changes: Any) -> None:
        stack = stack_of(moved_bank(SHAPE, 1), frozen=moved_bank(SHAPE, 5))
        pyreft_engine.train(base, stack, [some_rows(4)], [generator(2)], settings(), **changes)

    def stop(*_: object) -> None:
        raise RuntimeError("stopped")

    run()
    assert_clean(base.model)
    with pytest.raises(RuntimeError, match="stopped"):
        run(on_step=stop)
    assert_clean(base.model)
    monkeypatch.setattr(base.model.lm_head, "forward", stop)  # inside pyvene's call: its hooks are attached
    with pytest.raises(RuntimeError, match="stopped"):
        run()
    assert_clean(base.model)


def test_hooks_that_others_attached_outlive_pyvenes_clean_up() -> None:
    base = tiny_base()
    ids = torch.arange(2, 8).unsqueeze(0)
    before = base.model(ids, output_hidden_states=True).hidden_states  # transformers attaches hooks for good
    hooks = sum(len(m._forward_hooks) for m in base.model.modules())
    both(base, moved_bank(SHAPE, 1), epochs=1)
    assert_clean(base.model, hooks)
    assert len(base.model(ids, output_hidden_states=True).hidden_states) == len(before) == 5


def test_users_are_trained_one_after_the_other_each_over_its_own_frozen_edit(base: BaseModel) -> None:
    """A layer of groups, which is not shared, under the trained one: bit for bit what each user gets alone."""
    starts, groups = [moved_bank(SHAPE, seed) for seed in (1, 2)], [moved_bank(SHAPE, seed) for seed in (5, 6)]
    rows, draws, where = [some_rows(4), some_rows(6)[4:]], [3, 4], Positions.parse("f2+l2")

    def stack(numbers: list[int]) -> EditStack:
        banks = [EditBank.from_tensors(SHAPE, [edits[i].tensors(0) for i in numbers]) for edits in (groups, starts)]
        return EditStack(*(Layer(bank, where) for bank in banks))

    def trained(numbers: list[int]) -> tuple[list[list[float]], EditStack]:
        together, seen = stack(numbers), []
        results = pyreft_engine.train(
            base,
            together,
            [rows[i] for i in numbers],
            [generator(draws[i]) for i in numbers],
            settings(),
            on_step=lambda step, steps, _: seen.append((step, steps)),
        )
        of_each = [result.steps for result in results]
        assert seen == [(step + 1, steps) for steps in of_each for step in range(steps)]
        return [result.step_losses for result in results], together

    losses, together = trained([0, 1])
    for user in (0, 1):
        (alone,), stack_alone = trained([user])
        assert losses[user] == alone
        for name, tensor in stack_alone.trained.bank.tensors(0).items():
            assert torch.equal(tensor, together.trained.bank.tensors(user)[name])
            assert not torch.equal(tensor, starts[user].tensors(0)[name])
    (swapped,) = pyreft_engine.train(
        base,
        EditStack(Layer(groups[1], where), Layer(starts[0].to(), where)),
        rows[:1],
        [generator(draws[0])],
        settings(),
    )
    assert abs(swapped.step_losses[0] - losses[0][0]) > 1e-3  # whose frozen edit it is matters


def test_errors_say_what_to_do(base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, draws = [some_rows(2)] * 2, [generator(1), generator(2)]
    with pytest.raises(ValueError, match="2 edits need as many row lists and generators, got 1 and 2"):
        pyreft_engine.train(base, stack_of(EditBank.identity(SHAPE, draws)), rows[:1], draws, settings())
    with pytest.raises(ValueError, match="no rows to train on"):
        pyreft_engine.train(base, stack_of(moved_bank(SHAPE, 1)), [[]], draws[:1], settings())
    monkeypatch.setitem(sys.modules, "pyreft", None)
    with pytest.raises(ValueError, match="pip install --no-deps pyreft==0.1.0"):
        pyreft_engine.train(base, stack_of(moved_bank(SHAPE, 1)), rows[:1], draws[:1], settings())
