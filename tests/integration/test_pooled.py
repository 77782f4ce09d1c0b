"""Stage 1 pooled: central training on everybody's rows, the reference that federated training is held against."""

from __future__ import annotations

import csv
import json

import pytest
import torch

from fed import methods
from fed.base import model as base_model
from fed.edits.loreft import EditBank
from fed.edits.stack import EditStack, Layer
from fed.forward.batching import tokenize
from fed.lamp.cohorts import stage1_pairs
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.privacy.tensor_files import read_tensors
from fed.randomness import generator
from fed.settings.rules import SettingsError
from fed.training.plan import TrainSettings
from fed.training.train import train
from server_strategy.grid.nodes import RunError
from tests.integration.in_process import federate


def edit_of(folder):
    return read_tensors(folder / "collective.safetensors")[0]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def trained_plainly(run, **plan):
    """The edit of plain training on the rows of all users of the run's stage 1, and the mean loss."""
    task = get_task(run.task)
    corpus = open_corpus(run.data_source, task, seed=run.seed)
    base = base_model.load(run.base_source, device="cpu", dtype=run.dtype)
    rows = []
    for user in sorted(corpus.cohorts["others"]):
        pairs = stage1_pairs(task, corpus.user(user), cohorts=run.cohorts, max_items=run.max_items)
        rows += tokenize(pairs, base.tokenizer, run.max_length)
    method = methods.make(run, base.skeleton)
    bank = EditBank.identity(method.collective, [generator(run.seed, "collective")])
    stack = EditStack(Layer(bank, method.positions))
    (result,) = train(base, stack, [rows], [generator(run.seed, "stage1", 1, "everybody")], TrainSettings(**plan))
    return bank.tensors(0), result.mean_loss


@pytest.mark.parametrize(
    ("schedule", "warmup", "plan"),
    [
        ("linear", 0.1, {}),
        pytest.param("linear", 0.6, {"warmup": 0.6}, marks=pytest.mark.nightly),
        ("constant", 0.1, {"constant": True}),
    ],
)
def test_pooled_training_is_plain_training_on_everybodys_rows_bit_for_bit(settings, schedule, warmup, plan):
    """One optimizer and one schedule over rounds × local-epochs epochs, whatever fraction, strategy and average are."""
    changes = {"rounds": 3, "local_epochs": 2, "fraction": 0.3, "strategy": "fedadam", "dtype": "float32"}
    run = settings(stage1="pooled", schedule=schedule, warmup=warmup, **changes)
    report, _, folder = federate(run, 2)
    edit, loss = trained_plainly(run, epochs=6, batch_size=4, rate=0.005, token_budget=run.token_budget, **plan)
    assert same(edit_of(folder), edit)
    (row,) = report["rounds"]
    assert row["loss"] == loss and (row["round"], row["failed"]) == (1, 0)
    assert row["users"] == len(open_corpus(run.data, get_task(run.task), seed=run.seed).cohorts["others"])
    assert report["arms"]["stage1"]["loss_per_token"] < report["arms"]["base"]["loss_per_token"]


@pytest.mark.parametrize(
    "changes",
    [{}, pytest.param({"profile": True, "retrieved": 1, "cohorts": "all"}, marks=pytest.mark.nightly)],
    ids=["plain", "profile and retrieved"],
)
def test_which_node_stands_for_the_centre_does_not_matter(settings, tmp_path, changes):
    """Rows of users that the centre does not host are worded as their own node would, profile texts among them."""
    edits = []
    for nodes in (1, 3):
        run = settings(stage1="pooled", output_dir=str(tmp_path / str(nodes)), **changes)
        edits.append(edit_of(federate(run, nodes)[2]))
    assert same(*edits)


def test_the_ledger_of_pooled_training_has_the_hand_out_alone(settings, capsys):
    report, grid, folder = federate(settings(stage1="pooled"), 2)
    size = 4 * report["parameters"]["stage1"]
    stage1 = report["bytes"]["stage1"]
    assert stage1["up"]["payload"] == 0 and stage1["down"]["payload"] == size * len(report["users"])
    with (folder / "bytes.csv").open(encoding="utf-8") as file:
        assert {line["user"] for line in csv.DictReader(file)} == {user["user_id"] for user in report["users"]}
    kinds = [message.metadata.message_type for way, _, message in grid.seen if way == "down"]
    assert kinds.count("train.pooled") == 1 and "train" not in kinds
    assert "(pooled: its bytes are the hand-out's alone)" in (folder / "report.html").read_text(encoding="utf-8")
    assert "stage 1: pooled" in capsys.readouterr().out
    assert report["settings"]["stage1"] == "pooled"
    assert len((folder / "rounds.jsonl").read_text(encoding="utf-8").splitlines()) == 1


@pytest.mark.parametrize(("whole", "alone"), [("perfit", "perfit-stage1"), ("oppu", "lora-c")])
def test_every_method_that_federates_one_edit_trains_it_pooled(settings, tmp_path, whole, alone):
    edits = []
    for method in (whole, alone):
        report, _, folder = federate(settings(method=method, stage1="pooled", output_dir=str(tmp_path / method)), 2)
        assert report["arms"]["stage1"]["loss_per_token"] < report["arms"]["base"]["loss_per_token"]
        edits.append(edit_of(folder))
    assert same(*edits)


def test_fedreft_whose_clients_have_edits_of_their_own_cannot_be_pooled(settings):
    with pytest.raises(SettingsError, match="'fedreft' cannot honour stage1='pooled'; stage1 must be federated"):
        settings(method="fedreft", stage1="pooled")


def test_a_device_refuses_pooled_training_in_one_line(settings, tmp_path):
    run = settings(stage1="pooled", data="synthetic:2", cohorts="all", min_nodes=1)
    corpus = open_corpus(run.data, get_task(run.task), seed=run.seed)
    name = sorted({*corpus.cohorts["others"], *corpus.cohorts["test"]})[0]
    user = corpus.user(name)
    asked = [{"id": q.id, "input": q.input, "gold": q.gold} for q in user.queries]
    history = tmp_path / "history.json"
    history.write_text(json.dumps([{"user_id": name, "profile": list(user.profile), "query": asked}]))
    device = {"user-id": name, "history": str(history), "vault": str(tmp_path / "vault")}
    rule = "^stage1 must be 'federated' on devices, whose rows never leave them, got 'pooled'$"
    with pytest.raises(RunError, match=rule):
        federate(run, [device])
    assert not (tmp_path / "vault").exists()


def test_a_rate_that_is_too_large_for_pooled_training_ends_the_run_with_the_reason(settings):
    with pytest.raises(RunError, match="pooled training failed: .*a learning rate of 0.99 is too large"):
        federate(settings(stage1="pooled", stage1_lr=0.99, clip=0.0, rounds=30, weight_decay=1e9), 1)
