"""PerFit as a method: what nodes agree on, what a user's training depends on, and whose edit answers which question."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fed import methods
from fed.answering.reader import Question
from fed.base.skeleton import Skeleton
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward.batching import Row
from fed.methods import UserRows
from fed.randomness import generator
from fed.settings.rules import SettingsError
from fed.settings.settings import Settings
from fed.training.plan import TrainSettings
from fed.training.train import train

LAMP7 = Path(__file__).resolve().parents[3] / "sims" / "lamp7" / "pyproject.toml"


@pytest.fixture(scope="module")
def settings():
    config = tomllib.loads(LAMP7.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    small = {"layers": "1,2", "stage1-rank": 3, "stage2-rank": 2, "batch-size": 2, "token-budget": 30}
    rates = {"stage1-lr": 0.02, "stage2-lr": 0.02, "weight-decay": 0.01, "clip": 0.3, "temperature": 0.0}
    counts = {"local-epochs": 2, "stage2-epochs": 2, "seed": 0}
    ways = {"method": "perfit", "engine": "batched", "positions": "all", "stage2-positions": "same", "average": "svd"}
    return Settings.parse(config | small | rates | counts | ways)  # whatever the app's own presets are


@pytest.fixture(scope="module")
def make(settings):
    return lambda **changes: methods.make(replace(settings, **changes), Skeleton("tiny", 0, 32, 4, ()))


def rows(count, seed):
    draw = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 9, (count, 2), generator=draw).tolist()
    return [Row(*(tuple(torch.randint(3, 99, (n,), generator=draw).tolist()) for n in pair)) for pair in lengths]


USERS = [UserRows("carol", rows(5, 1)), UserRows("alice", rows(2, 2)), UserRows("bob", rows(3, 3))]


def assert_same(a, b, tolerance=0.0):
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=tolerance)


def test_shapes_are_those_of_the_two_ranks_in_wire_order(make):
    method = make()
    assert method.collective_shapes() == {"R": (2, 3, 32), "W": (2, 3, 32), "b": (2, 3)}
    assert method.private_shapes() == {"R": (2, 2, 32), "W": (2, 2, 32), "b": (2, 2)}
    assert list(method.collective_shapes()) == ["R", "W", "b"]
    assert make(layers="all").collective_shapes()["b"] == (4, 3)


def test_layers_that_the_base_has_not_are_refused(make):
    with pytest.raises(SettingsError, match=r"layers must lie in 0\.\.3"):
        make(layers="1,4")


def test_every_node_starts_from_the_same_identity_edit_and_the_seed_draws_it(make):
    start = make().initial_collective()
    assert_same(start, make(stage2_rank=5, rounds=9, output_dir="x").initial_collective())
    assert not torch.equal(start["R"], make(seed=1).initial_collective()["R"])
    assert {name: tuple(t.shape) for name, t in start.items()} == make().collective_shapes()
    assert torch.equal(start["W"], start["R"]) and not start["b"].any()
    torch.testing.assert_close(start["R"] @ start["R"].mT, torch.eye(3).expand(2, 3, 3), rtol=0, atol=1e-6)


def test_drift_is_how_far_r_has_left_the_manifold(make):
    start = make().initial_collective()
    assert make().drift(start) < 1e-6
    assert make().drift(start | {"R": 2 * start["R"]}) == pytest.approx(3.0, abs=1e-5)


def test_stage_1_starts_each_user_from_the_servers_edit_with_the_settings_plan(make, tiny64):
    method = make(local_epochs=3, weight_decay=0.1, clip=0.5)
    start = {name: t.double() for name, t in method.initial_collective().items()}
    before = {name: t.clone() for name, t in start.items()}
    found = method.train_collective(tiny64, start, USERS, round_number=4, proximal_mu=0.2)
    assert_same(start, before)
    plan = TrainSettings(
        epochs=3, batch_size=2, rate=0.02, clip=0.5, weight_decay=0.1, proximal_mu=0.2, token_budget=30
    )
    for one, user in zip(found, USERS, strict=True):
        bank = EditBank.from_tensors(method.collective, [start])
        draw = generator(0, "stage1", 4, user.user_id)
        (result,) = train(tiny64, EditStack(Layer(bank, Positions.parse("all"))), [user.rows], [draw], plan)
        assert one.user_id == user.user_id and one.result.step_losses == pytest.approx(result.step_losses, abs=1e-9)
        assert_same(one.tensors, bank.tensors(0), 1e-9)
        assert float((one.tensors["W"] - start["W"]).abs().max()) > 1e-3


@pytest.mark.parametrize("rule", ["same", "last"])
def test_stage_2_gives_each_user_an_edit_of_its_own_over_the_frozen_collective_one(make, tiny64, random_bank, rule):
    method = make(stage2_positions=rule)
    own, shared = Positions.parse("all" if rule == "same" else rule), Positions.parse("all")
    collective = random_bank(1, rank=3, seed=5).tensors(0)
    before = {name: t.clone() for name, t in collective.items()}
    found = method.train_private(tiny64, collective, USERS)
    assert_same(collective, before)
    plan = TrainSettings(epochs=2, batch_size=2, rate=0.02, token_budget=30)
    frozen = Layer(EditBank.from_tensors(method.collective, [collective]), shared, shared=True)
    for one, user in zip(found, USERS, strict=True):
        bank = EditBank.identity(method.private, [generator(0, "private", user.user_id)]).to(dtype=torch.float64)
        draw = generator(0, "stage2", user.user_id)
        train(tiny64, EditStack(frozen, Layer(bank, own)), [user.rows], [draw], plan)
        assert_same(one.tensors, bank.tensors(0), 1e-9)


@pytest.mark.parametrize("stage", [1, 2])
def test_a_users_training_does_not_depend_on_who_else_is_hosted(make, tiny64, random_bank, stage):
    collective = random_bank(1, rank=3, seed=5).tensors(0)

    method = make()

    def run(users):
        if stage == 1:
            trained = method.train_collective(tiny64, collective, users, round_number=1)
        else:
            trained = method.train_private(tiny64, collective, users)
        return {one.user_id: one.tensors for one in trained}

    together = run(USERS)
    assert list(together) == ["carol", "alice", "bob"]
    for other in (run(USERS[::-1]), run(USERS[1:]), *(run([user]) for user in USERS)):  # a bank of one user, at last
        for user, tensors in other.items():
            assert_same(tensors, together[user], 1e-9)


def test_trained_tensors_are_plain_float32_copies_under_a_narrow_base(make, make_base):
    method = make()
    for one in method.train_collective(make_base("bfloat16"), method.initial_collective(), USERS, round_number=1):
        for tensor in one.tensors.values():
            assert tensor.dtype == torch.float32 and tensor.device.type == "cpu" and not tensor.requires_grad


@pytest.mark.parametrize("engine", ["batched", "pyreft"])
def test_progress_is_told_step_by_step(make, tiny64, engine):
    if engine == "pyreft":
        pytest.importorskip("pyreft")
    method, seen = make(engine=engine), []
    method.train_collective(
        tiny64,
        method.initial_collective(),
        USERS,
        round_number=1,
        progress=lambda *values: seen.append(values[:2]),
    )
    steps = {"carol": 6, "alice": 2, "bob": 4}
    expected = [6] if engine == "batched" else list(steps.values())
    assert seen == [(k + 1, n) for n in expected for k in range(n)]


def test_the_average_is_the_one_that_is_named(make, random_bank):
    method, edits = make(), [random_bank(1, rank=3, seed=s).tensors(0) for s in range(3)]
    flat = method.average("fedavg", edits, [1.0, 1.0, 2.0], edits[0])
    torch.testing.assert_close(flat["W"], (edits[0]["W"] + edits[1]["W"] + 2 * edits[2]["W"]) / 4)
    assert method.drift(flat) > 0.1 and method.drift(method.average("svd", edits, [1.0] * 3, edits[0])) < 1e-12


def test_each_question_is_answered_under_the_edits_it_asks_for(make, tiny64, random_bank, reference_logits):
    """The private parts come in no order: each question must find its own."""
    bank, shared = random_bank(3, seed=8), random_bank(1, rank=3, seed=5)
    private = {"zoe": bank.tensors(0), "adam": bank.tensors(1), "mia": bank.tensors(2)}
    number = {"zoe": 0, "adam": 1, "mia": 2}
    reader = make().reader(tiny64, shared.tensors(0), private)
    row = rows(1, 9)[0]
    questions = [Question(row, c, p) for c in (False, True) for p in (None, "zoe", "mia", "adam")]
    ids = row.prompt + row.completion
    for question, (nll, tokens, *_) in zip(questions, reader.losses(questions), strict=True):
        everywhere = [True] * len(ids)
        edits = [(shared, 0, everywhere)] * question.collective
        edits += [(bank, number[question.personal], everywhere)] if question.personal else []
        log_p = reference_logits(tiny64, ids, edits).log_softmax(-1)
        start = len(row.prompt)
        expected = -sum(float(log_p[start + k - 1, token]) for k, token in enumerate(row.completion))
        assert tokens == len(row.completion) and nll == pytest.approx(expected, abs=1e-10)


def test_a_reader_without_private_parts_answers_with_base_and_collective(make, tiny64, random_bank):
    reader = make().reader(tiny64, random_bank(1, rank=3).tensors(0), {})
    row = rows(1, 9)[0]
    (base, *_), (stage1, *_) = reader.losses([Question(row, False, None), Question(row, True, None)])
    assert base != stage1
    with pytest.raises(KeyError):
        reader.losses([Question(row, True, "zoe")])


def test_sampled_answers_depend_on_the_questions_name_and_the_seed_alone(make, tiny64, random_bank):
    shared, row = random_bank(1, rank=3).tensors(0), rows(1, 9)[0]
    questions = [Question(row, True, None, ("stage1", "u", str(i))) for i in range(6)]

    def answers(asked, **changes):
        reader = make(temperature=3.0, **changes).reader(tiny64, shared, {})
        return reader.generate(asked, max_new_tokens=8, stop=None)

    first = answers(questions)
    assert first == answers(questions[::-1])[::-1] == [answers([question])[0] for question in questions]
    assert len(set(first)) > 2 and answers(questions, seed=1) != first
    greedy = make().reader(tiny64, shared, {}).generate(questions, max_new_tokens=8, stop=None)
    assert len(set(greedy)) == 1
