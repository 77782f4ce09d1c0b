"""Every method through the whole app: measured payload = analytic payload, and nothing private on the wire."""

from __future__ import annotations

import json
import math

import pytest

from clients.device.node_config import NodeConfig
from clients.node import Node
from fed import methods
from fed.answering.comparisons import PAIRS
from fed.base import model as base_model
from fed.communication.ledger import PHASES
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.privacy.tensor_files import read_tensors
from fed.privacy.vault import PERSONAL
from fed.settings.methods import METHODS
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.packing import by_user
from tests.integration.in_process import RUN_ID, federate

pytest.importorskip("peft")
LOREFT = {"perfit", "perfit-stage1", "reft-p", "reft-cp", "fedreft"}
ENGINE = {name: "batched" if name in LOREFT else "none" for name in METHODS}
ENGINE |= dict.fromkeys(("lora-c", "lora-p", "oppu", "ffa-lora", "fedsa-lora"), "peft")


@pytest.mark.parametrize(
    ("method", "wire_dtype"), [(m, "float32") for m in METHODS] + [(m, "bfloat16") for m in ("perfit", "oppu")]
)
def test_the_measured_payload_is_the_analytic_one(settings, method, wire_dtype):
    run = settings(method=method, wire_dtype=wire_dtype, fraction=0.5, max_new_tokens=3, stage2_layers="2")
    report, grid, folder = federate(run, 2)
    base = base_model.load(run.base_source).skeleton
    cost = methods.make(run, base).cost
    one = cost.federated_bytes(wire_dtype)
    trained = sum(row["users"] for row in report["rounds"])
    assert trained == (6 if one else 0)  # two rounds of half of six users
    assert report["parameters"]["stage1"] == cost.federated_parameters
    assert report["parameters"]["stage2"] == cost.private_parameters
    assert (report["method"], report["engine"]) == (method, ENGINE[method])
    expected = {
        ("stage1", "down"): one * (trained + len(report["users"]) * bool(one)),  # rounds, then the hand-out
        ("stage1", "up"): one * trained,
    }
    for phase in PHASES:
        for way in ("down", "up"):
            if (phase, way) == ("stage1", "down") and wire_dtype != "float32":
                continue  # whole or a change, by who has the last broadcast: tests/integration/test_narrow_wire.py
            assert report["bytes"][phase][way]["payload"] == expected.get((phase, way), 0), (phase, way)
    vaults = list((folder / "vault").glob(f"*/{PERSONAL}"))
    assert len(vaults) == (6 if cost.private_parameters else 0)
    for path in vaults:
        assert {n: tuple(t.shape) for n, t in read_tensors(path)[0].items()} == dict(cost.private)
    arms = {arm for arm, found in report["arms"].items() if found is not None}
    assert arms == {"base"} | ({"stage1"} if one else set()) | ({"stage1+2", "swapped"} if vaults else set())
    losses = {arm: report["arms"][arm]["loss_per_token"] for arm in arms}
    if method == "fedsa-lora":  # its A does nothing without a user's B
        assert losses.pop("stage1") == losses["base"]
    assert len(set(losses.values())) == len(losses)  # each arm's tensors do something
    assert report["ceiling"]["golds"] == report["data"]["queries"]
    # Three of the tiny base's tokens are three letters.
    assert report["ceiling"]["cut_golds"] > 0 and report["ceiling"]["rougeL"] < 0.5
    compared = {(row["a"], row["b"]) for row in report["comparisons"]}
    assert compared == {pair for pair in PAIRS if set(pair) <= arms}
    assert {row["users"] for row in report["comparisons"]} == ({len(report["users"])} if compared else set())
    assert method in (folder / "report.html").read_text(encoding="utf-8")


def test_stage_1_alone_is_perfits_stage_1_and_reft_p_is_its_stage_2_on_the_bare_base(settings, tmp_path):
    runs = {
        name: federate(settings(method=name, max_new_tokens=0, output_dir=str(tmp_path / name)), 2)
        for name in ("perfit", "perfit-stage1", "reft-p", "reft-cp")
    }
    arms = {name: report["arms"] for name, (report, _, _) in runs.items()}
    assert arms["perfit-stage1"]["base"] == arms["reft-p"]["base"] == arms["perfit"]["base"]
    assert arms["perfit-stage1"]["stage1"] == arms["perfit"]["stage1"]
    assert runs["perfit-stage1"][0]["rounds"][-1]["loss"] == runs["perfit"][0]["rounds"][-1]["loss"]
    assert runs["reft-p"][0]["parameters"]["stage2"] == runs["perfit"][0]["parameters"]["stage2"]
    both = sum(runs["perfit"][0]["parameters"][stage] for stage in ("stage1", "stage2"))
    assert runs["reft-cp"][0]["parameters"] == {**runs["reft-p"][0]["parameters"], "stage2": both}
    own = [arms[name]["stage1+2"]["loss_per_token"] for name in ("perfit", "reft-p", "reft-cp")]
    assert len(set(own)) == 3


def test_lora_c_is_oppus_stage_1(settings, tmp_path):
    c, oppu = (
        federate(settings(method=name, max_new_tokens=3, output_dir=str(tmp_path / name)), 2)[0]
        for name in ("lora-c", "oppu")
    )
    assert all(c["arms"][arm] == oppu["arms"][arm] for arm in ("base", "stage1"))
    assert c["bytes"]["stage1"] == oppu["bytes"]["stage1"] and c["rounds"][-1]["loss"] == oppu["rounds"][-1]["loss"]


@pytest.mark.parametrize("cohorts", ["paper", "all"])
def test_a_user_trains_on_its_own_rows_alone_and_not_on_those_of_the_users_before_it(settings, cohorts):
    """OPPU's code builds the list of training rows outside of its loop over users, so that user i has those of 0…i."""
    run = settings(method="oppu", cohorts=cohorts, max_new_tokens=0, max_items=0, data="synthetic:4")
    _, grid, _ = federate(run, 1)
    corpus = open_corpus(run.data, get_task(run.task), seed=run.seed)
    node = Node(run, NodeConfig(part=0, parts=1), RUN_ID)
    tokenizer = node.base.tokenizer
    translation = Translation(node.method.collective_shapes(), run.wire_dtype)
    seen = 0
    for direction, _, message in grid.seen:
        kind = message.metadata.message_type
        if kind not in ("train", "train.personalize"):
            continue
        if direction == "down":
            users = json.loads(message.content.config_records["host"]["users"])
            continue
        for place, user in enumerate(users):
            rows = (node.stage1_rows if kind == "train" else node.stage2_rows)(user).rows
            record = corpus.user(user)
            mine = [item["text"] for item in record.profile]
            if kind == "train" and cohorts == "paper":
                mine = [query.gold for query in record.queries]
            assert [tokenizer.decode(row.completion, skip_special_tokens=True) for row in rows] == [
                f" {text}" for text in mine
            ]
            metrics = by_user(message.content, len(users), translation)[place]["metrics"]
            assert metrics["num-examples"] == len(mine)
            if kind != "train":
                assert metrics["steps"] == run.stage2_epochs * math.ceil(len(mine) / run.batch_size)
            seen += 1
    assert seen > 4


def losses(report, arm="base"):
    return [user["arms"][arm]["loss_per_token"] for user in report["users"]]


@pytest.mark.parametrize("method", ["rag", "perfit"])
def test_retrieved_items_stand_before_the_rows_of_any_method(settings, roomy_base, tmp_path, method):
    def run(**changes):
        name = "-".join(str(v) for v in changes.values()) or "plain"
        short = settings(
            max_new_tokens=0, max_length=1024, base_model=roomy_base, output_dir=str(tmp_path / name), **changes
        )
        return federate(short, 2)[0]

    plain, one = run(method="non-personalized"), run(method=method, retrieved=1)
    assert (one["settings"]["retrieved"], one["settings"]["profile"]) == (1, False)
    assert all(a != b for a, b in zip(losses(plain), losses(one), strict=True))
    more = run(method=method, retrieved=2)
    assert losses(one) != losses(more)
    if method == "rag":
        assert losses(run(method="rag", retrieved=0)) == losses(one)  # rag alone retrieves one item
    else:
        assert losses(run(method="rag", retrieved=2)) == losses(more)  # all arms get the same prompts


def test_items_that_do_not_fit_are_told_once_a_user(settings, capsys):
    federate(settings(method="perfit-stage1", retrieved=2, max_length=130, max_new_tokens=0), 2)
    told = [line for line in capsys.readouterr().out.splitlines() if "retrieved items did not fit" in line]
    assert told and len(told) == len(set(told))
    assert all("into max-length = 130 tokens and were left out" in line for line in told)


def test_profiles_stay_in_their_users_folders_and_change_the_rows(settings, tmp_path, talkative_base):
    common = {"max_new_tokens": 0, "max_length": 1024, "base_model": talkative_base}
    plain, _, _ = federate(settings(method="non-personalized", output_dir=str(tmp_path / "plain"), **common), 2)
    report, grid, folder = federate(settings(method="oppu", profile=True, **common), 2)
    kept = {path.parent.name: path for path in (folder / "vault").glob("*/personal.profile.safetensors")}
    assert len(kept) == 12  # those who federate have one too
    texts = [bytes(read_tensors(path)[0]["text"].tolist()).decode() for path in kept.values()]
    assert all(len(text) > 20 for text in texts)
    for _, _, message in grid.seen:
        said = "" if message.has_error() else str(dict(message.content))
        assert not any(text[:20] in said for text in texts)
    assert report["settings"]["profile"] is True
    assert all(a != b for a, b in zip(losses(plain), losses(report), strict=True))


def test_words_of_any_script_are_counted_beside_lamps_own_and_reach_the_report(settings):
    report, _, _ = federate(settings(rouge_tokenizer="unicode"), 2)
    for scores in report["arms"].values():
        assert {"rouge1", "rougeL", "rouge1_lamp", "rougeL_lamp"} <= set(scores)
        assert scores["rougeL"] == pytest.approx(scores["rougeL_lamp"])  # the tiny base writes ASCII
    assert report["errors"] == []
