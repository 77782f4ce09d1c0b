"""LoRA-C, LoRA-P and OPPU as methods: what is federated, what is private, and that users share the base alone."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fed import methods
from fed.answering.reader import Question
from fed.communication import costs
from fed.edits.lora import adapted, initial
from fed.forward.batching import minibatches
from fed.randomness import generator
from fed.settings.settings import Settings
from tests.fed.methods.test_perfit import USERS, assert_same

pytest.importorskip("peft")
LAMP7 = Path(__file__).resolve().parents[3] / "sims" / "lamp7" / "pyproject.toml"
NAMES = ("lora-c", "lora-p", "oppu")


@pytest.fixture
def make(tiny64):
    config = tomllib.loads(LAMP7.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    small = {"batch-size": 2, "token-budget": 30, "local-epochs": 2, "stage2-epochs": 2, "weight-decay": 0.0}
    rates = {"stage1-lr": 0.01, "stage2-lr": 0.01, "clip": 0.0, "temperature": 0.0, "average": "fedavg", "seed": 0}
    settings = Settings.parse(config | small | rates | {"method": "oppu"})
    return lambda **changes: methods.make(replace(settings, **changes), tiny64.skeleton)


def moved(tensors, seed):
    draw = generator(seed, "moved")
    return {n: t.double() + 0.1 * torch.randn(t.shape, generator=draw, dtype=torch.float64) for n, t in tensors.items()}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_federated_and_private_is_what_the_analysis_counts(make, tiny64, name):
    method, cost = make(method=name), costs.cost(name, tiny64.skeleton)
    assert method.engine == "peft"
    assert method.collective_shapes() == cost.federated and method.private_shapes() == cost.private
    assert bool(cost.federated) == (name != "lora-p") and bool(cost.private) == (name != "lora-c")
    if cost.federated:
        start = method.initial_collective()
        assert {n: tuple(t.shape) for n, t in start.items()} == cost.federated


def test_stage_1_is_torchs_adamw_on_the_adapter_alone(make, tiny64):
    """The first user's losses against a loop spelled out with PEFT's adapters and transformers' own loss."""
    method = make()
    start = {n: t.double() for n, t in method.initial_collective().items()}
    (found,) = method.train_collective(tiny64, start, USERS[:1], round_number=2)
    user, losses = USERS[0], []
    plan = minibatches(len(user.rows), 2, 2, generator(0, "stage1", 2, user.user_id))
    with adapted(tiny64, {"collective": costs.ATTENTION}, 8, 8) as adapters:
        adapters.fill("collective", start)
        adapters.use(["collective"], trained="collective")
        optimizer = torch.optim.AdamW(adapters.parameters("collective").values(), weight_decay=0.0)
        for step, picked in enumerate(plan):
            rows = [user.rows[i] for i in picked]
            loss = torch.zeros((), dtype=torch.float64)
            for row in rows:
                labels = torch.tensor([(-100,) * len(row.prompt) + row.completion])
                ids = torch.tensor([row.prompt + row.completion])
                loss = loss + tiny64.model(input_ids=ids, labels=labels).loss * len(row.completion)
            loss = loss / sum(len(row.completion) for row in rows)
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = method.plan(1).rate_at(step, len(plan))
            optimizer.step()
            losses.append(float(loss.detach()))
        expected = adapters.tensors("collective", list(start))
    # transformers takes its loss in float32
    assert found.result.step_losses == pytest.approx(losses, abs=2e-5)
    assert_same(found.tensors, expected, 1e-4)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("stage", [1, 2])
def test_a_users_training_does_not_depend_on_who_else_is_hosted(make, tiny64, stage):
    method = make()
    collective = moved(method.initial_collective(), 5)

    def run(users):
        if stage == 1:
            found = method.train_collective(tiny64, collective, users, round_number=1)
        else:
            found = method.train_private(tiny64, collective, users)
        return {one.user_id: one for one in found}

    before = {n: t.clone() for n, t in collective.items()}
    together, backwards = run(USERS), run(USERS[::-1])
    assert_same(collective, before)
    for user in USERS:
        alone = run([user])[user.user_id]
        for other in (together, backwards):
            assert other[user.user_id].result == alone.result
            assert_same(other[user.user_id].tensors, alone.tensors)


def test_oppus_private_adapter_is_trained_on_top_of_the_collective_one(make, tiny64):
    with_one, without = make(), make(method="lora-p")
    collective = moved(with_one.initial_collective(), 5)
    (on_top,) = with_one.train_private(tiny64, collective, USERS[:1])
    (bare,) = without.train_private(tiny64, {}, USERS[:1])
    assert on_top.tensors.keys() == bare.tensors.keys()
    assert on_top.result.step_losses[0] != pytest.approx(bare.result.step_losses[0], abs=1e-3)


def test_each_question_is_answered_under_the_adapters_it_asks_for(make, tiny64):
    method = make()
    collective = moved(method.initial_collective(), 1)
    start = initial(method.private_shapes(), generator(0, "x"))
    private = {name: moved(start, seed) for seed, name in enumerate(("alice", "bob"), 2)}
    row = USERS[0].rows[0]
    arms = [(False, None), (True, None), (True, "bob"), (True, "alice"), (False, None), (True, "bob")]
    questions = [Question(row, c, p) for c, p in arms]
    reader, ticks = method.reader(tiny64, collective, private), []
    losses = reader.losses(questions, ticks.append)
    nll = [loss.nll for loss in losses]
    assert nll[0] == pytest.approx(nll[4]) and nll[2] == pytest.approx(nll[5])
    assert len({round(value, 6) for value in nll}) == 4 and sum(ticks) == 6
    for question, (nll, *_) in zip(questions, losses, strict=True):
        with method.adapted(tiny64, ("collective", "private")) as adapters:
            adapters.fill("collective", collective)
            adapters.fill("private", private[question.personal or "bob"])
            adapters.use(["collective"] * question.collective + ["private"] * (question.personal is not None))
            ids = torch.tensor([row.prompt + row.completion])
            with torch.no_grad():
                scores = tiny64.model(input_ids=ids).logits[0].log_softmax(-1)
            place = range(len(row.prompt), ids.shape[1])
            assert nll == pytest.approx(-sum(float(scores[t - 1, ids[0, t]]) for t in place), abs=1e-9)
    texts = reader.generate(questions, max_new_tokens=8, stop=None)
    assert texts[0] == texts[4] and texts[2] == texts[5] and len(set(texts)) > 1


def test_the_mean_map_is_the_truncated_svd_of_the_mean_of_b_a(make, tiny64):
    method = make()
    before = {n: t.double() for n, t in method.initial_collective().items()}
    replies, weights = [moved(before, seed) for seed in (1, 2, 3)], [1.0, 2.0, 5.0]
    mean = method.average("svd", replies, weights, before)
    flat = method.average("fedavg", replies, weights, before)
    assert mean.keys() == flat.keys() == before.keys()
    for A in (n for n in before if ".lora_A." in n):
        B = A.replace("_A.", "_B.")
        dense = sum(w / 8 * r[B] @ r[A] for w, r in zip(weights, replies, strict=True))
        U, sigma, Vh = torch.linalg.svd(dense)
        best = U[:, :8] @ torch.diag(sigma[:8]) @ Vh[:8]
        torch.testing.assert_close(mean[B] @ mean[A], best, rtol=0, atol=1e-10)
        assert float(mean[A].norm()) == pytest.approx(float(before[A].norm()))
        torch.testing.assert_close(flat[A], sum(w / 8 * r[A] for w, r in zip(weights, replies, strict=True)))
    same = method.average("svd", [before] * 2, [1.0, 1.0], before)
    assert_same(same, before)
