"""ReFT and PerFit's stage 1: half of PerFit each, trained as that half is."""

from dataclasses import replace

import pytest

from fed import methods
from fed.answering.reader import Question
from fed.base.skeleton import Skeleton
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.randomness import generator
from fed.training.plan import TrainSettings
from fed.training.train import train
from tests.fed.methods.test_perfit import USERS, assert_same, rows, settings  # noqa: F401

TINY = Skeleton("tiny", 0, 32, 4, ())


@pytest.fixture
def make(settings):  # noqa: F811
    return lambda method, **changes: methods.make(replace(settings, method=method, **changes), TINY)


@pytest.mark.parametrize(("name", "rank"), [("reft-p", 2), ("reft-cp", 5)])
def test_the_rank_is_stage_2s_or_both_stages_together_and_nothing_is_federated(make, name, rank):
    method = make(name)
    assert method.private_shapes() == {"R": (2, rank, 32), "W": (2, rank, 32), "b": (2, rank)}
    assert method.collective_shapes() == method.initial_collective() == {} and method.drift({}) == 0.0


@pytest.mark.parametrize("rule", ["same", "last"])
def test_each_user_trains_an_edit_of_its_own_on_the_bare_base_by_stage_2s_plan(make, tiny64, rule):
    method = make("reft-cp", stage2_positions=rule, stage2_lr=0.01, stage1_lr=0.5)
    found = method.train_private(tiny64, {}, USERS)
    plan = TrainSettings(epochs=2, batch_size=2, rate=0.01, token_budget=30)
    for one, user in zip(found, USERS, strict=True):
        bank = EditBank.identity(method.private, [generator(0, "private", user.user_id)])
        bank = bank.to(dtype=one.tensors["R"].dtype)
        draw = generator(0, "stage2", user.user_id)
        stack = EditStack(Layer(bank, Positions.parse("all" if rule == "same" else rule)))
        train(tiny64, stack, [user.rows], [draw], plan)
        assert_same(one.tensors, bank.tensors(0), 1e-9)


def test_the_reference_engine_trains_it_too(make, tiny64):
    pytest.importorskip("pyreft")
    batched = make("reft-p", positions="last").train_private(tiny64, {}, USERS)
    other = make("reft-p", positions="last", engine="pyreft").train_private(tiny64, {}, USERS)
    for one, same in zip(other, batched, strict=True):
        assert one.result.step_losses[0] == pytest.approx(same.result.step_losses[0], abs=1e-6)
        assert one.result.steps == same.result.steps


def test_a_question_is_answered_under_the_users_edit_alone(make, tiny64, random_bank, reference_logits):
    bank = random_bank(2, seed=8)
    reader = make("reft-p").reader(tiny64, {}, {"zoe": bank.tensors(0), "adam": bank.tensors(1)})
    row = rows(1, 9)[0]
    ids = row.prompt + row.completion
    for number, user in enumerate(("zoe", "adam")):
        ((nll, *_),) = reader.losses([Question(row, False, user)])
        log_p = reference_logits(tiny64, ids, [(bank, number, [True] * len(ids))]).log_softmax(-1)
        start = len(row.prompt)
        expected = -sum(float(log_p[start + k - 1, token]) for k, token in enumerate(row.completion))
        assert nll == pytest.approx(expected, abs=1e-10)


def test_stage_1_alone_trains_perfits_collective_edit_and_has_no_private_tensors(make, tiny64):
    whole, half = make("perfit"), make("perfit-stage1")
    assert half.private_shapes() == {} and half.collective_shapes() == whole.collective_shapes()
    start = whole.initial_collective()
    assert_same(start, half.initial_collective())
    trained = [m.train_collective(tiny64, start, USERS, round_number=1) for m in (whole, half)]
    for one, same in zip(*trained, strict=True):
        assert_same(one.tensors, same.tensors)
