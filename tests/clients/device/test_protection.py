"""Every message of a device passes its policy before anything of the user's is read."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from simulation.in_process import FIRST_NODE, InProcessGrid

from clients.device.node_config import NodeConfig, NodeConfigError
from fed.communication import wire
from fed.policy.policy import OPEN, STRICT
from fed.privacy.tensor_files import WrittenTogether
from fed.privacy.vault import Vault
from fed.training.train import _Update
from tests.integration.test_extraction import direction, texts

KINDS = ("query.hello", "train", "query.adopt", "train.personalize", "evaluate")
WITHIN = {"max_items": 8, "max_queries": 0, "cohorts": "all", "layers": "3", "stage1_rank": 4}


@pytest.fixture
def device(tiny_base, tmp_path) -> dict[str, str]:
    """A device whose history would be missed as soon as somebody looks for it."""
    return {
        "user-id": "alice",
        "vault": str(tmp_path / "vault"),
        "history": str(tmp_path / "nothing-here.jsonl"),
        "base-model": str(tiny_base),
    }


def ask(device, settings, kind, *, run=7, edit=None, array=None, collective="none", users=("alice",)) -> Message:
    content = RecordDict(
        {
            "host": ConfigRecord({"users": json.dumps(users)}),
            "config": ConfigRecord({"server-round": 1, "collective": collective}),
        }
    )
    if edit is not None:
        array = wire.pack(edit, settings.wire_dtype)
    if array is not None:
        content["arrays"] = ArrayRecord({"edit": Array(array)})
    grid = InProcessGrid([device], settings, run)
    (reply,) = grid.send_and_receive([Message(content, dst_node_id=FIRST_NODE, message_type=kind)])
    return reply


@pytest.mark.parametrize("kind", KINDS)
def test_a_refused_message_of_any_kind_reads_nothing_and_is_one_line_in_the_device_s_log(device, settings, capfd, kind):
    reply = ask(device, settings(**WITHIN | {"max_items": 1}), kind)
    assert reply.error.reason == "policy: max-items must be 0 or 8 to 4096 in steps of 4"
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line == f"error: {reply.error.reason}; got 1"
    # What passes is what then misses the history.
    assert "the history must be an existing" in ask(device, settings(**WITHIN), kind).error.reason


@pytest.mark.parametrize("kind", ["train", "query.adopt"])
def test_an_edit_out_of_bounds_is_refused_before_the_history_is_read(device, settings, kind):
    norms = (1.0, 1.0, 1.0, 1.0)
    reply = ask(device, settings(**WITHIN), kind, edit=direction(0, norms, strength=1e6))
    assert reply.error.reason.startswith("policy: a collective edit's |b| must be at most 0.25")
    sizes = ask(device, settings(**WITHIN), kind, array=np.zeros(7, np.float32))
    assert sizes.has_error() and "history" not in sizes.error.reason


@pytest.mark.parametrize("kind", ["train", "query.adopt"])
def test_an_edit_whose_r_is_the_seed_s_has_the_same_bounds(device, settings, kind):
    edit = direction(0, (1.0,), strength=20.0)
    sent = {"D": edit["W"] - edit["R"], "b": edit["b"]}
    reply = ask(device, settings(**WITHIN | {"average": "frozen-r"}), kind, edit=sent)
    assert reply.error.reason.startswith("policy: a collective edit's |b| must be at most 0.25")


@pytest.mark.parametrize("kind", ["train.personalize", "evaluate"])
def test_an_edit_of_the_vault_that_an_earlier_policy_let_in_is_refused_too(device, settings, tmp_path, kind):
    name = Vault(tmp_path / "vault").write_collective(direction(0, (1.0,), strength=1e6))
    reply = ask(device, settings(**WITHIN), kind, collective=name)
    assert reply.error.reason.startswith("policy: a collective edit's |b| must be at most 0.25")


@pytest.mark.parametrize("users", [("alice", "alice"), ("alice", "bob"), ("bob",), ()])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_message_is_for_the_device_s_own_user_once_so_that_it_is_answered_once(device, settings, kind, users):
    reply = ask(device, settings(**WITHIN | {"method": "fedreft"}), kind, users=users)
    assert reply.error.reason == "policy: a message must be for the device's own user, named once"
    assert "history" in ask(device, settings(**WITHIN | {"method": "fedreft"}), kind).error.reason


def full(*_arguments, **_words):
    raise OSError(errno.ENOSPC, "No space left on device", "/home/alice/vault")


@pytest.mark.parametrize(
    ("kind", "name", "instead", "rule", "in_the_log"),
    [
        (
            _Update,
            "is_finite",
            lambda *_: False,
            "the training must stay finite",
            "rate of 0.005 is too large",
        ),
        (WrittenTogether, "add", full, "the device must be able to read and write its own files", "/home/alice/vault"),
    ],
)
def test_what_failed_of_a_user_is_its_bare_rule_at_the_server_and_all_of_it_in_the_log(
    device, settings, tmp_path, monkeypatch, capfd, kind, name, instead, rule, in_the_log
):
    (tmp_path / "history.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(8, 0)))
    device["history"] = str(tmp_path / "history.jsonl")
    monkeypatch.setattr(kind, name, instead)
    run = settings(**WITHIN | {"method": "reft-p", "batch_size": 4, "stage2_lr": 0.005})
    reply = ask(device, run, "train.personalize")
    assert reply.content["0/error"]["reason"] == f"{rule}; the device's own log has the rest"
    assert [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ") and in_the_log in line]


def test_a_run_that_changes_its_settings_is_refused_and_another_run_is_not(device, settings):
    assert "history" in ask(device, settings(**WITHIN), "query.hello").error.reason
    changed = settings(**WITHIN | {"max_items": 12})
    rule = "policy: a run's settings must stay those of its first message"
    assert ask(device, changed, "query.hello").error.reason == rule
    assert "history" in ask(device, changed, "query.hello", run=8).error.reason


def test_a_node_config_without_a_policy_is_strict_on_a_device_and_open_in_a_simulation(tmp_path):
    alice = {"user-id": "alice", "vault": "/v"}
    assert NodeConfig.parse(alice).policy == STRICT
    assert NodeConfig.parse({"partition-id": 0, "num-partitions": 1}).policy == OPEN
    (tmp_path / "policy.toml").write_text("min-rows = 20\n")
    assert NodeConfig.parse(alice | {"policy": str(tmp_path / "policy.toml")}).policy.min_rows == 20
    (tmp_path / "policy.toml").write_text("secret-key = 20\n")
    for path, words in ((tmp_path / "policy.toml", "every key must be one of"), (tmp_path / "none", "readable")):
        with pytest.raises(NodeConfigError, match=words) as error:
            NodeConfig.parse(alice | {"policy": str(path)})
        assert error.value.public == "node config: the policy must be a readable TOML file of rules"
