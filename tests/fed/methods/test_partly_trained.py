"""Averages that leave a part of PerFit's collective edit untrained: `frozen-r` its R, `exact` the rows beyond r."""

import pytest
import torch

from fed.edits import stiefel
from fed.edits.loreft import loreft
from fed.settings.rules import SettingsError
from fed.settings.settings import Settings
from tests.fed.methods.test_perfit import USERS, assert_same, make, settings  # noqa: F401

WEIGHTS = [1.0, 2.0, 3.0]


def doubled(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


def value(edit, layer):
    x = torch.randn(1, 12, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return loreft(x, *(edit[name][layer].double() for name in ("R", "W", "b"))) - x


def mean_value(edits, layer):
    return sum(w * value(edit, layer) for w, edit in zip(WEIGHTS, edits, strict=True)) / sum(WEIGHTS)


def test_a_frozen_r_is_neither_sent_nor_trained_and_half_the_numbers_travel(make, tiny64):  # noqa: F811
    method, plain = make(average="frozen-r"), make()
    assert method.collective_shapes() == {"D": (2, 3, 32), "b": (2, 3)}
    start = method.initial_collective()
    assert not any(tensor.any() for tensor in start.values())
    R = method.whole(start)["R"]
    assert torch.equal(R, plain.initial_collective()["R"])  # the run's seed draws it, on every side
    for trained in method.train_collective(tiny64, doubled(start), USERS, round_number=1):
        assert {name: tuple(t.shape) for name, t in trained.tensors.items()} == method.collective_shapes()
        assert trained.tensors["D"].any() and trained.tensors["b"].any()
        assert torch.equal(method.whole(trained.tensors)["R"], R.double())


def test_the_average_of_frozen_r_is_the_mean_of_what_the_users_edits_do(make, tiny64):  # noqa: F811
    method = make(average="frozen-r")
    start = doubled(method.initial_collective())
    replies = [t.tensors for t in method.train_collective(tiny64, start, USERS, round_number=1)]
    mean = method.whole(method.average("frozen-r", replies, WEIGHTS, start))
    for layer in range(2):
        expected = mean_value([method.whole(reply) for reply in replies], layer)
        torch.testing.assert_close(value(mean, layer), expected, rtol=0, atol=1e-12)
    assert method.drift(mean) < 1e-6 and method.drift(start) == 0.0


def test_two_rounds_of_exact_train_the_first_rows_alone_and_lose_nothing(make, tiny64):  # noqa: F811
    method = make(average="exact", exact_rank=24)
    start = doubled(method.initial_collective())
    assert method.collective_shapes()["R"] == (2, 24, 32)
    assert stiefel.orthogonality_error(start["R"]) < 1e-6
    torch.testing.assert_close(start["R"][:, :3], doubled(make().initial_collective())["R"], rtol=0, atol=1e-6)
    for number in (1, 2):
        replies = [t.tensors for t in method.train_collective(tiny64, start, USERS, round_number=number)]
        for reply in replies:
            for name, tensor in reply.items():
                assert torch.equal(tensor[:, 3:], start[name][:, 3:]) and not torch.equal(tensor, start[name])
            assert stiefel.orthogonality_error(reply["R"][:, :3]) < 1e-6
        mean = method.average("exact", replies, WEIGHTS, start)
        for layer in range(2):
            torch.testing.assert_close(value(mean, layer), mean_value(replies, layer), rtol=0, atol=1e-9)
        assert method.drift(mean) < 1e-9
        start = mean
    assert float((start["W"] - start["R"])[:, 3:].abs().max()) > 1e-3  # the second round's clients carry a residual


def test_a_rank_that_exact_cannot_have_is_refused(make):  # noqa: F811
    assert make(average="exact").collective_shapes()["R"] == (2, 32, 32)
    for rank in (2, 33):
        with pytest.raises(SettingsError, match=f"exact-rank must be 0 or lie between .* 3 and .* 32, got {rank}"):
            make(average="exact", exact_rank=rank)


def test_what_cannot_leave_a_part_untrained_or_steps_rows_that_moved_is_refused(settings):  # noqa: F811
    config = settings.as_config()
    for average in ("exact", "frozen-r"):
        with pytest.raises(SettingsError, match=f"average='{average}' leaves .* engine='pyreft' cannot; use"):
            Settings.parse(config | {"average": average, "engine": "pyreft"})
    for change in ({"strategy": "fedadam"}, {"server-lr": 0.5}):
        with pytest.raises(SettingsError, match="average='exact' has other rows after every round"):
            Settings.parse(config | {"average": "exact"} | change)
        assert Settings.parse(config | {"average": "frozen-r"} | change).average == "frozen-r"


def test_other_averages_train_all_of_the_edit(make, tiny64):  # noqa: F811
    method = make(average="polar")
    start = doubled(method.initial_collective())
    (trained, *_) = method.train_collective(tiny64, start, USERS, round_number=1)
    assert all(not torch.equal(trained.tensors[name], start[name]) for name in start)
    assert_same(method.whole(start), start)
