"""FFA-LoRA and FedSA-LoRA: which half is trained, which is sent, which stays, and what the mean of it is."""

from dataclasses import replace

import pytest
import torch

from fed.answering.reader import Question
from fed.communication import costs
from fed.settings.rules import SettingsError
from fed.settings.settings import Settings
from tests.fed.methods.test_lora import make, moved  # noqa: F401
from tests.fed.methods.test_perfit import USERS, assert_same

pytest.importorskip("peft")
NAMES = ("ffa-lora", "fedsa-lora")


def wide(tensors):
    return {name: tensor.double() for name, tensor in tensors.items()}


def product(method, tensors):
    """B A of each module."""
    whole = method.whole(tensors)
    return {n: whole[n.replace("_A.", "_B.")] @ whole[n] for n in whole if ".lora_A." in n}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_sent_and_what_is_kept_is_what_the_analysis_counts(make, tiny64, name):  # noqa: F811
    method, cost = make(method=name), costs.cost(name, tiny64.skeleton)
    assert method.engine == "peft"
    assert method.collective_shapes() == cost.federated and method.private_shapes() == cost.private
    start = method.initial_collective()
    assert {n: tuple(t.shape) for n, t in start.items()} == cost.federated
    assert all((".lora_B." in n) == (name == "ffa-lora") for n in start)


def test_ffa_trains_b_alone_and_its_mean_is_the_mean_map(make, tiny64):  # noqa: F811
    method = make(method="ffa-lora")
    start = wide(method.initial_collective())
    A = {n: t for n, t in method.whole(start).items() if ".lora_A." in n}
    found = method.train_collective(tiny64, start, USERS, round_number=1)
    for trained in found:
        assert trained.tensors.keys() == start.keys() and all(t.any() for t in trained.tensors.values())
        whole = method.whole(trained.tensors)
        assert_same({n: whole[n] for n in A}, A)  # the seed's, the same for everybody
        assert trained.result.step_losses[-1] != trained.result.step_losses[0]
    weights, replies = [1.0, 2.0, 5.0], [one.tensors for one in found]
    mean = product(method, method.average("svd", replies, weights, start))
    each = [product(method, reply) for reply in replies]
    expected = {n: sum(w / 8 * one[n] for w, one in zip(weights, each, strict=True)) for n in mean}
    assert_same(mean, expected, 1e-12)


def test_fedsa_goes_on_from_its_own_b_under_the_a_that_it_is_sent(make, tiny64):  # noqa: F811
    method = make(method="fedsa-lora")
    start = wide(method.initial_collective())
    (first,) = method.train_collective(tiny64, start, USERS[:1], round_number=1)
    assert set(first.tensors) == set(method.collective_shapes()) | set(method.private_shapes())
    sent = {name: first.tensors[name] for name in method.collective_shapes()}
    assert any(not torch.equal(sent[name], start[name]) for name in sent)  # after a step of B, A has a gradient too
    again = replace(USERS[0], given=sent, own=first.tensors)
    (second,) = method.train_collective(tiny64, start, [again], round_number=1)
    (fresh,) = method.train_collective(tiny64, start, [replace(USERS[0], given=sent)], round_number=1)
    assert second.result.step_losses[0] != pytest.approx(fresh.result.step_losses[0], abs=1e-4)  # the minibatch is one
    mean = method.average("svd", [sent, start], [3.0, 1.0], start)
    assert_same(mean, {n: (3 * sent[n] + start[n]) / 4 for n in start}, 1e-12)


def test_fedsas_stage_2_trains_b_over_a_that_stays(make, tiny64):  # noqa: F811
    method = make(method="fedsa-lora")
    collective = wide(method.initial_collective())
    before = {n: t.clone() for n, t in collective.items()}
    (trained,) = method.train_private(tiny64, collective, USERS[:1])
    assert trained.tensors.keys() == method.private_shapes().keys() and all(t.any() for t in trained.tensors.values())
    assert_same(collective, before)
    private = {"bob": trained.tensors, "alice": moved(trained.tensors, 3)}
    reader = method.reader(tiny64, method.whole(collective), private)
    row = USERS[0].rows[0]
    arms = [(False, None), (True, None), (True, "bob"), (True, "alice")]
    bare, shared, bob, alice = (loss.nll for loss in reader.losses([Question(row, c, p) for c, p in arms]))
    assert shared == bare and len({bare, bob, alice}) == 3
    with pytest.raises(ValueError, match="private half does nothing without the collective one"):
        reader.losses([Question(row, False, "bob")])


def test_the_base_comes_out_as_it_went_in(make, tiny64, hooks_of):  # noqa: F811
    before = {name: p.requires_grad for name, p in tiny64.model.named_parameters()}
    method = make(method="ffa-lora")
    method.train_collective(tiny64, wide(method.initial_collective()), USERS[:1], round_number=1)
    assert {name: p.requires_grad for name, p in tiny64.model.named_parameters()} == before
    assert hooks_of(tiny64.model) == 0


@pytest.mark.parametrize("name", NAMES)
def test_averages_of_edits_are_refused(make, name):  # noqa: F811
    config = make().settings.as_config() | {"method": name}
    for average in ("polar", "exact", "frozen-r", "krum"):
        with pytest.raises(SettingsError, match=f"method '{name}' cannot honour average='{average}'"):
            Settings.parse(config | {"average": average})
