"""A narrow wire: changes travel, both sides agree on every edit bit for bit, and the ledger has every byte of it."""

from __future__ import annotations

import csv
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fed import methods
from fed.base import model as base_model
from fed.communication import changes, wire
from fed.communication.ledger import DIRECTIONS
from fed.communication.on_device import NOT_HELD, OnDevice
from fed.privacy.tensor_files import fingerprint, read_tensors
from fed.privacy.vault import Vault
from fed.settings.settings import Settings
from server_strategy.checkpoint import checkpoint
from server_strategy.grid.message_size import measure
from server_strategy.grid.nodes import RunError
from tests.integration.in_process import federate
from tests.integration.test_resume import broken_off, of_a_report

SMALL = {"data": "synthetic:2", "max_items": 2, "max_queries": 1, "max_new_tokens": 0, "cohorts": "all"}  # four users
SMALL |= {"fraction": 1.0, "wire_dtype": "int8"}


@pytest.fixture
def short(settings, tmp_path):
    """short("name", …) -> settings of a run whose users all federate, in a folder of that name."""

    def make(name: str = "run", **changes: object) -> Settings:
        return settings(**SMALL | changes, output_dir=str(tmp_path / name))

    return make


@pytest.fixture(scope="module")
def unbroken(settings_in, tmp_path_factory):
    """The int8 run's report, all that crossed, and its folder."""
    return federate(settings_in(tmp_path_factory.mktemp("unbroken"), **SMALL), 2)


def payloads(folder: Path) -> dict[tuple[int, str], dict[str, int]]:
    """(round of stage 1, way) -> user -> bytes."""
    sizes: dict[tuple[int, str], dict[str, int]] = defaultdict(dict)
    with (folder / "bytes.csv").open() as file:
        for row in csv.DictReader(file):
            if row["phase"] == "stage1":
                sizes[int(row["round"]), row["direction"]][row["user"]] = int(row["payload"])
    return sizes


def bytes_of_edit(run: Settings) -> tuple[int, int]:
    """(of a change, of a whole edit)."""
    shapes = methods.make(run, base_model.load(run.base_source).skeleton).collective_shapes()
    return wire.bytes_of(shapes, run.wire_dtype), wire.bytes_of(shapes, "float32")


NIGHTLY = [("int4", m) for m in ("oppu", "ffa-lora", "fedreft", "frozen-r", "exact", "median")]
NIGHTLY += [("int4", "fedsa-lora"), ("bfloat16", "fedsa-lora"), ("float16", "polar"), ("float16", "oppu")]


@pytest.mark.parametrize(
    ("dtype", "what"),
    [("int8", "svd"), *(pytest.param(*pair, marks=pytest.mark.nightly) for pair in NIGHTLY)],
)
def test_who_has_the_last_broadcast_is_sent_its_change_and_everybody_sends_changes(short, dtype, what):
    method = {"average": what} if what in ("svd", "polar", "exact", "frozen-r", "median") else {"method": what}
    if "lora" in what or what == "oppu":
        pytest.importorskip("peft")
        method |= {"average": "fedavg"}
    run = short(wire_dtype=dtype, **method)
    report, grid, folder = federate(run, 4)
    change, whole = bytes_of_edit(run)
    sizes = payloads(folder)
    assert set(sizes[1, "down"].values()) == {whole}
    assert {*sizes[1, "up"].values(), *sizes[2, "up"].values()} == {change}
    # An edit of one's own travels whole, and so does a broadcast that rounding would take off the manifold.
    later = {size for number in (2, 3) for size in sizes[number, "down"].values()}
    assert later == ({whole} if what == "fedreft" else {change}) or what == "exact"
    assert not report["errors"] and report["arms"]["stage1"] is not None
    # To the byte: each node hosts one user, so that its message is what the ledger counts.
    sent = [m for way, _, m in grid.seen if way == "down" and m.metadata.message_type in ("train", "query.adopt")]
    for size in ("payload", "record", "wire"):
        assert report["bytes"]["stage1"]["down"][size] == sum(getattr(measure(m.content), size) for m in sent)
    # What was handed out is what the server kept, bit for bit.
    (kept,) = (folder / "vault").glob("collective*.safetensors")
    assert fingerprint(read_tensors(kept)[0]) == fingerprint(read_tensors(folder / "collective.safetensors")[0])


def test_the_last_broadcast_in_every_vault_is_the_same_and_a_narrow_run_ends_near_the_wide_one(short, unbroken):
    report, _, folder = unbroken
    vault = Vault(folder / "vault")
    names = {path.parent.name for path in (folder / "vault").glob("*/personal.broadcast.safetensors")}
    assert len(names) == 4
    for name in ("broadcast", "broadcast-before"):
        held = {fingerprint(read_tensors(path)[0]) for path in vault.root.glob(f"*/personal.{name}.safetensors")}
        assert len(held) == 1
    wide, _, _ = federate(short("wide", wire_dtype="float32"), 2)
    assert report["arms"]["stage1"]["loss_per_token"] != wide["arms"]["stage1"]["loss_per_token"]
    for arm in ("stage1", "stage1+2"):
        assert report["arms"][arm]["loss_per_token"] == pytest.approx(wide["arms"][arm]["loss_per_token"], rel=0.01)
    for way in DIRECTIONS:
        assert report["bytes"]["stage1"][way]["payload"] < wide["bytes"]["stage1"][way]["payload"]


def test_a_user_that_missed_a_round_is_sent_the_whole_edit(short):
    run = short(rounds=4, fraction=0.5, max_items=1)
    _, _, folder = federate(run, 1)
    change, whole = bytes_of_edit(run)
    sizes = payloads(folder)
    seen = set()
    for number in range(1, 6):
        for user, size in sizes[number, "down"].items():
            assert size == (change if user in sizes.get((number - 1, "up"), {}) else whole)
            seen.add(size)
    assert seen == {change, whole}


def losing(folder: Path, kind: str, name: str):
    """Before the second message of this kind to a node, one user's files of this name are gone."""
    count = iter(range(1000))

    def before_send(message_type: str) -> None:
        if message_type == kind and next(count) == (2 if kind == "train" else 0):
            (path,) = sorted((folder / "vault").glob(f"*/personal.{name}.safetensors"))[:1]
            for lost in path.parent.glob(f"personal.{name}*"):
                lost.unlink()

    return before_send


@pytest.mark.parametrize("kind", ["train", pytest.param("query.adopt", marks=pytest.mark.nightly)])
def test_a_user_that_lost_the_broadcast_says_so_and_is_sent_it_whole(short, unbroken, kind):
    whole_run, _, _ = unbroken
    run = short()
    report, _, folder = federate(run, 2, losing(run.run_folder(7), kind, "broadcast"))
    assert {key: report[key] for key in ("arms", "users")} == {key: whole_run[key] for key in ("arms", "users")}
    (error,) = report["errors"]
    assert error["reason"] == NOT_HELD and error["round"] == (2 if kind == "train" else 3)
    _, whole = bytes_of_edit(run)
    more = report["bytes"]["stage1"]["down"]["payload"] - whole_run["bytes"]["stage1"]["down"]["payload"]
    assert more == whole  # beside the change that was in vain


@pytest.mark.nightly
def test_a_user_that_lost_its_feedback_goes_on_from_none(short, unbroken):
    run = short()
    report, _, _ = federate(run, 2, losing(run.run_folder(7), "train", "feedback"))
    assert not report["errors"]
    assert report["arms"]["stage1"] != unbroken[0]["arms"]["stage1"]
    assert report["bytes"]["stage1"] == unbroken[0]["bytes"]["stage1"]


# hello ×2, two rounds of a message to each of two nodes, adopt ×2
@pytest.mark.parametrize(
    "at", [5, pytest.param(4, marks=pytest.mark.nightly), pytest.param(7, marks=pytest.mark.nightly)]
)
def test_a_run_that_is_gone_on_with_sends_the_same_bytes_and_ends_bit_for_bit(short, unbroken, at):
    report, _, whole_folder = unbroken
    folder = broken_off(short("broken"), at)
    resumed, _, _ = federate(short("elsewhere", resume=str(folder)), 2)
    assert of_a_report(resumed) == of_a_report(report)
    names = [fingerprint(read_tensors(f / "collective.safetensors")[0]) for f in (folder, whole_folder)]
    assert names[0] == names[1]
    for name in ("broadcast", "feedback"):
        kept = [
            sorted(fingerprint(read_tensors(path)[0]) for path in f.glob(f"vault/*/personal.{name}*.safetensors"))
            for f in (folder, whole_folder)
        ]
        assert kept[0] == kept[1]


@pytest.mark.nightly
def test_a_checkpoint_that_knows_no_broadcasts_is_refused_in_one_line(short):
    folder = broken_off(short("broken"), 5)
    saved = checkpoint.read(folder)
    without = replace(saved, forms=saved.forms[:-1])
    checkpoint.write(folder, without)
    with pytest.raises(RunError, match="parts of the run remembered.*start a new run"):
        federate(short("elsewhere", resume=str(folder)), 2)


def test_devices_and_simulated_nodes_agree_bit_for_bit_and_to_the_byte(short, open_policy, tmp_path):
    run = short("simulated", wire_coding="deflate")
    here, _, here_folder = federate(run, 4)
    users = [user["user_id"] for user in here["users"]]
    nodes = [{"user-id": name, "vault": str(tmp_path / name), "policy": open_policy} for name in users]
    there, _, folder = federate(short("devices", wire_coding="deflate", min_nodes=4), nodes)
    assert there["arms"] == here["arms"] and there["users"] == here["users"]
    assert payloads(folder) == payloads(here_folder)
    # Entropy-coded, a change has a byte more than its shapes say at most.
    change, _ = bytes_of_edit(run)
    assert max(payloads(folder)[2, "up"].values()) <= change + 1


def test_replies_that_are_no_changes_are_refused_by_name_and_the_run_goes_on_without_them(short, monkeypatch):
    honest = OnDevice.sent
    lies = {
        "scale": (
            lambda p: np.append(np.array([0xC0, 0x7F], np.uint8), p[2:]),
            "the scales of a change must be finite",
        ),
        "code": (lambda p: np.append(p[:-1], np.uint8(0x80)), "the codes of a change in int8 must lie in -127..127"),
        "length": (lambda p: p[:-1], "a change in int8 must have"),
    }
    liars: dict[str, str] = {}

    def sent(self, user_id, *others):
        packed = honest(self, user_id, *others)
        if user_id not in liars and len(liars) < len(lies):
            liars[user_id] = [*lies][len(liars)]
        return lies[liars[user_id]][0](packed) if user_id in liars else packed

    monkeypatch.setattr(OnDevice, "sent", sent)
    run = short(rounds=1)
    report, _, folder = federate(run, 4)
    reasons = {error["user"]: error["reason"] for error in report["errors"]}
    assert len(reasons) == 3 and all(lies[lie][1] in reasons[user] for user, lie in liars.items())
    assert [row["users"] for row in report["rounds"]] == [1] and len(payloads(folder)[1, "up"]) == 1
    _, whole = bytes_of_edit(run)
    handed_out = payloads(folder)[2, "down"]  # who was refused may not have the broadcast
    assert all(handed_out[user] == whole for user in handed_out.keys() & liars.keys())


def test_the_packing_of_a_run_is_that_of_its_method(short):
    run = short(average="frozen-r", wire_dtype="int4")
    shapes = methods.make(run, base_model.load(run.base_source).skeleton).collective_shapes()
    assert list(changes.packing(shapes, "int4").shapes) == ["D", "b"]
