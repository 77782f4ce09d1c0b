"""FedReFT: what a client is sent, where it starts, and whose edit answers."""

import math
from dataclasses import replace

import pytest
import torch

from fed import methods
from fed.answering.reader import Question
from fed.averages.geometric_median import geometric_median
from fed.averages.svd import svd_mean
from fed.base.skeleton import Skeleton
from fed.edits.loreft import EditBank, EditShape
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.methods.fedreft import own_share
from fed.randomness import generator
from fed.settings.rules import SettingsError
from fed.settings.settings import Settings
from fed.training.plan import TrainSettings
from fed.training.train import train
from tests.fed.methods.test_perfit import USERS, assert_same, rows, settings  # noqa: F401


@pytest.fixture
def make(settings):  # noqa: F811
    return lambda **changes: methods.make(
        replace(settings, method="fedreft", **changes), Skeleton("tiny", 0, 32, 4, ())
    )


@pytest.fixture
def edits(random_bank):
    return [random_bank(1, rank=3, seed=seed).tensors(0) for seed in range(5)]


def maps(edit):
    """The affine maps [M | c] of all layers, dense, as one long vector."""
    R, W, b = edit["R"], edit["W"], edit["b"]
    return torch.cat(
        [torch.cat([r.T @ (w - r), (c @ r)[:, None]], 1).flatten() for r, w, c in zip(R, W, b, strict=True)]
    )


def loss_per_token(reference_logits, base, user, edit):
    bank, total, tokens = EditBank.from_tensors(shape_of(edit), [edit]), 0.0, 0
    for row in user.rows:
        ids = row.prompt + row.completion
        log_p = reference_logits(base, ids, [(bank, 0, [True] * len(ids))]).log_softmax(-1)
        total -= sum(float(log_p[len(row.prompt) + k - 1, t]) for k, t in enumerate(row.completion))
        tokens += len(row.completion)
    return total / tokens


def shape_of(edit):
    return EditShape((1, 2), edit["R"].shape[1], 32)


def test_a_client_is_sent_the_median_of_all_others_last_edits(make, edits):
    method, latest = make(), dict(zip((4, 7, 1, 9), edits, strict=False))
    sent = method.for_each([7, 9, 100], latest, edits[4])
    assert_same(sent[7], geometric_median([latest[u] for u in (4, 1, 9)], edits[4]))
    assert_same(sent[9], geometric_median([latest[u] for u in (4, 7, 1)], edits[4]))
    assert_same(sent[100], geometric_median(list(latest.values()), edits[4]))
    changed = method.for_each([7], latest | {7: edits[4]}, edits[4])
    assert_same(changed[7], sent[7])  # all but me
    assert method.for_each([7], {7: edits[0]}, edits[4]) == {}


def test_the_average_is_the_geometric_median_whoever_has_more_rows(make, edits):
    found = make().average("svd", edits[:3], [1.0, 100.0, 1.0], edits[4])
    assert_same(found, geometric_median(edits[:3], edits[4]))


def test_the_better_the_own_edit_does_the_more_it_weighs():
    assert own_share(2.0, 2.0) == 0.5
    assert own_share(1.0, 2.0) == pytest.approx(math.e / (1 + math.e))
    assert own_share(2.0, 1.0) == pytest.approx(1 / (1 + math.e))
    assert own_share(1e9, 0.0) < 1e-300 and own_share(0.0, 1e9) == 1.0


def test_a_client_starts_from_its_own_edit_mixed_by_how_well_both_do_on_its_rows(make, tiny64, edits, reference_logits):
    method = make()
    users = [
        replace(USERS[0], own=edits[0], given=edits[1]),
        replace(USERS[1], given=edits[2]),
        replace(USERS[2], own=edits[3], given=edits[4]),
    ]
    starts = method.starts(tiny64, users)
    assert starts[1] is edits[2]
    for i in (0, 2):
        user = users[i]
        own, given = (loss_per_token(reference_logits, tiny64, user, edit) for edit in (user.own, user.given))
        share = math.exp(-own) / (math.exp(-own) + math.exp(-given))
        assert abs(share - 0.5) > 1e-3
        expected = svd_mean([user.own, user.given], [share, 1 - share], user.own)
        assert_same(starts[i], expected, 1e-8)
    torch.testing.assert_close(
        maps(svd_mean([edits[0], edits[0]], [0.3, 0.7], edits[0])), maps(edits[0]), rtol=0, atol=1e-10
    )


def test_a_round_trains_each_client_from_its_start_by_stage_1s_plan(make, tiny64, edits):
    method = make()
    users = [replace(USERS[0], own=edits[0], given=edits[1]), USERS[1], replace(USERS[2], given=edits[2])]
    found = method.train_collective(tiny64, edits[3], users, round_number=2)
    starts = method.starts(tiny64, [users[0], replace(users[1], given=edits[3]), users[2]])
    plan = TrainSettings(epochs=2, batch_size=2, rate=0.02, token_budget=30)
    for one, user, start in zip(found, users, starts, strict=True):
        bank = EditBank.from_tensors(method.collective, [start])
        stack = EditStack(Layer(bank, Positions.parse("all")))
        train(tiny64, stack, [user.rows], [generator(0, "stage1", 2, user.user_id)], plan)
        assert_same(one.tensors, bank.tensors(0), 1e-9)


def test_stage_2_is_one_more_local_round_that_stays_with_the_user(make, tiny64, edits):
    method = make(stage2_lr=0.01, stage2_positions="last")
    assert method.private_shapes() == method.collective_shapes()
    users = [replace(USERS[0], own=edits[0]), USERS[1]]
    found = method.train_private(tiny64, edits[3], users)
    starts = method.starts(tiny64, [replace(user, given=edits[3]) for user in users])
    plan = TrainSettings(epochs=2, batch_size=2, rate=0.01, token_budget=30)
    for one, user, start in zip(found, users, starts, strict=True):
        bank = EditBank.from_tensors(method.collective, [start])
        stack = EditStack(Layer(bank, Positions.parse("all")))
        train(tiny64, stack, [user.rows], [generator(0, "stage2", user.user_id)], plan)
        assert_same(one.tensors, bank.tensors(0), 1e-9)


def test_an_edit_kept_in_double_mixes_with_one_off_a_narrower_wire(make, tiny64, edits):
    given = {name: t.float() for name, t in edits[1].items()}
    (start,) = make().starts(tiny64, [replace(USERS[0], own=edits[0], given=given)])
    assert {t.dtype for t in start.values()} == {torch.float32}


def test_a_users_own_edit_answers_in_place_of_the_collective_one(make, tiny64, edits, reference_logits):
    reader = make().reader(tiny64, edits[0], {"zoe": edits[1]})
    row = rows(1, 9)[0]
    arms = [(False, None), (True, None), (True, "zoe")]
    for (collective, personal), edit in zip(arms, (None, edits[0], edits[1]), strict=True):
        ((nll, *_),) = reader.losses([Question(row, collective, personal)])
        ids = row.prompt + row.completion
        bank = [] if edit is None else [(EditBank.from_tensors(shape_of(edit), [edit]), 0, [True] * len(ids))]
        log_p = reference_logits(tiny64, ids, bank).log_softmax(-1)
        expected = -sum(float(log_p[len(row.prompt) + k - 1, t]) for k, t in enumerate(row.completion))
        assert nll == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("change", "fix"),
    [({"strategy": "fedadam"}, "strategy must be fedavg"), ({"average": "fedavg"}, "average must be svd")],
)
def test_another_strategy_or_average_is_refused(settings, change, fix):  # noqa: F811
    with pytest.raises(SettingsError, match=f"method 'fedreft' cannot honour .*; {fix} with it"):
        Settings.parse({**settings.as_config(), "method": "fedreft", **change})
