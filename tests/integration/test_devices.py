"""The ClientApp on devices: own history, own vault, own base model; what breaks on one stays on it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.privacy.sealed import Secret, new_key_file
from fed.privacy.tensor_files import fingerprint, read_tensors
from fed.privacy.vault import SEALED, Vault
from fed.settings.settings import Settings
from server_strategy.grid.nodes import RunError
from tests.integration.in_process import RecordingGrid, federate


@pytest.fixture
def devices(tmp_path, open_policy):
    """devices(settings) -> node configs of one device a user of the run's data, each with a history file of its own.

    Their policy is open, as in a simulation, whose exact figures they give.
    """

    def make(settings: Settings, count: int = 4) -> list[dict]:
        corpus = open_corpus(settings.data, get_task(settings.task), seed=settings.seed)
        users = sorted({*corpus.cohorts["others"], *corpus.cohorts["test"]})[:count]
        configs = []
        for name in users:
            user = corpus.user(name)
            home = tmp_path / "devices" / name
            home.mkdir(parents=True)
            asked = [{"id": q.id, "input": q.input, "gold": q.gold} for q in user.queries]
            record = {"user_id": name, "profile": list(user.profile), "query": asked}
            (home / "history.json").write_text(json.dumps([record]))
            config = {"user-id": name, "history": str(home / "history.json"), "vault": str(home / "vault")}
            configs.append(config | {"policy": open_policy})
        return configs

    return make


@pytest.fixture
def short(settings):
    """short(...) -> settings of a run on four devices, or on four simulated nodes with the same users."""

    def make(**changes) -> Settings:
        return settings(
            **{"data": "synthetic:2", "cohorts": "all", "fraction": 1.0, "rounds": 2, "min_nodes": 4} | changes
        )

    return make


def test_devices_and_simulated_nodes_of_one_user_each_give_the_same_arms_bit_for_bit(short, devices, tmp_path):
    there, _, there_folder = federate(short(), devices(short()))
    here, _, here_folder = federate(short(min_nodes=0, output_dir=str(tmp_path / "simulated")), 4)
    assert there["users"] == here["users"] and there["arms"] == here["arms"]
    assert [{**row, "seconds": 0} for row in there["rounds"]] == [{**row, "seconds": 0} for row in here["rounds"]]
    for part in ("record", "payload", "wire"):
        for phase, ways in here["bytes"].items():
            assert there["bytes"][phase]["up"][part] == ways["up"][part]
    collective = "collective.safetensors"
    edits = [read_tensors(folder / collective)[0] for folder in (there_folder, here_folder)]
    assert fingerprint(edits[0]) == fingerprint(edits[1])
    assert len(there["users"]) == 4 and not (there_folder / "vault").exists()


def test_a_simulation_accounts_for_its_clients_time_and_no_device_says_when_it_was_at_work(short, devices, tmp_path):
    there, devices_seen, _ = federate(short(), devices(short()))
    here, simulated_seen, _ = federate(short(min_nodes=0, output_dir=str(tmp_path / "simulated")), 4)
    phases = sum(here["seconds"][phase] for phase in ("stage1", "stage2", "evaluate"))
    assert 0.5 * phases < here["seconds"]["clients"] < phases  # in one process there is little else
    assert "clients" not in there["seconds"] and there["seconds"]["greeting"] > 0

    def timed(grid):
        return [m for way, _, m in grid.seen if way == "up" and not m.has_error() and "timing" in m.content]

    assert timed(simulated_seen) and not timed(devices_seen)


def test_each_devices_private_tensors_lie_in_its_own_vault_alone(short, devices, tmp_path):
    configs = devices(short())
    federate(short(), configs)
    for config in configs:
        assert Vault(Path(config["vault"])).users() == [config["user-id"]]


def test_a_device_with_a_key_file_trains_and_is_tested_on_a_sealed_vault(short, devices, tmp_path):
    configs = devices(short())
    new_key_file(tmp_path / "key")
    for config in configs:
        config["vault-key-file"] = str(tmp_path / "key")
    sealed, _, _ = federate(short(), configs)
    for config in configs:
        vault = Vault(Path(config["vault"]), Secret.from_key_file(tmp_path / "key"))
        assert vault.open(config["user-id"]).tensors and len(list(vault.root.glob(f"*/{SEALED}"))) == 1
    assert all(user["arms"]["stage1+2"] is not None for user in sealed["users"])


def spoil(config: dict, how: str, tmp_path: Path) -> str:
    """Break one device's configuration; returns the rule that the server may see."""
    history = Path(config["history"])
    if how == "unknown user":
        config.pop("history")
        config["user-id"] = "nobody-at-all"
        return "user-id must be a user of this run's data"
    if how == "no history":
        config["history"] = str(history.with_name("SECRET.jsonl"))
        return "history must be an existing .json or .jsonl file"
    if how == "bad record":
        (record,) = json.loads(history.read_text())
        record["profile"] = [{"id": "1", "text": 7, "SECRET": "my diary"}]
        history.write_text(json.dumps([record]))
        return "record 1: profile item 1's 'text' must be a string"
    if how == "no vault":
        config.pop("vault")
        return "a device needs a vault"
    if how == "misspelt key":
        config["histroy"] = "SECRET"
        return "every key must be one of"
    if how == "no such base":
        config["base-model"] = str(tmp_path / "SECRET")
        return "base-model must be one that the device can load"
    if how == "loose key":
        new_key_file(tmp_path / "SECRET.key")
        os.chmod(tmp_path / "SECRET.key", 0o644)
        config["vault-key-file"] = str(tmp_path / "SECRET.key")
        return "the vault's secret must be readable and private"
    raise AssertionError(how)


@pytest.mark.parametrize(
    "how", ["unknown user", "no history", "bad record", "no vault", "misspelt key", "no such base", "loose key"]
)
def test_a_device_that_breaks_a_rule_stays_out_and_the_server_sees_the_rule_alone(short, devices, tmp_path, capfd, how):
    configs = devices(short())
    rule = spoil(configs[0], how, tmp_path)
    report, grid, _ = federate(short(), configs)
    said = capfd.readouterr()
    assert [user["user_id"] for user in report["users"]] == [c["user-id"] for c in configs[1:]]
    (reply,) = [m for way, node, m in grid.seen if way == "up" and node == 1000]
    assert reply.has_error() and rule in reply.error.reason and "\n" not in reply.error.reason
    for private in ("SECRET", str(tmp_path), "diary", "fine", "nobody-at-all"):
        assert private not in reply.error.reason
    assert said.out.count("warning: node 1000 takes no part") == 1
    (line,) = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert line.removeprefix("error: ")  # the device's own log has all of it


def test_a_run_whose_devices_all_refuse_fails_with_the_first_rule(short, devices):
    configs = devices(short())
    for config in configs:
        config.pop("vault")
    with pytest.raises(RunError, match="a device needs a vault"):
        federate(short(), configs)


def test_a_device_on_another_base_model_stays_out(short, devices, tiny_llama, tiny_tokenizer, tmp_path, capsys):
    tiny_llama(seed=5).save_pretrained(tmp_path / "other")
    tiny_tokenizer().save_pretrained(tmp_path / "other")
    configs = devices(short())
    configs[0]["base-model"] = str(tmp_path / "other")
    report, _, _ = federate(short(), configs)
    assert len(report["users"]) == 3
    assert "warning: all nodes must run one base model, but node 1000 runs other" in capsys.readouterr().out


def test_an_honest_second_phone_is_refused_by_name_at_both_ends_and_the_first_stays(short, devices, tmp_path, capfd):
    phones = devices(short(), 2)
    phones.append(phones[0] | {"vault": str(tmp_path / "second")})
    user, (first, _, second) = phones[0]["user-id"], sorted(range(1000, 1003))
    report, grid, _ = federate(short(rounds=1, min_nodes=3), phones)
    assert sorted(row["user_id"] for row in report["users"]) == sorted([user, phones[1]["user-id"]])
    (error,) = report["errors"]
    assert f"'{user}' is on nodes {first} and {second}; node {second} takes no part" in error["reason"]
    told = f"error: the server refuses this device: user '{user}' takes part with another device already; stop one"
    assert told in capfd.readouterr().err
    of_second = [message.metadata.message_type for way, node, message in grid.seen if node == second and way == "down"]
    assert of_second == ["query.hello", "query.refused"] and not list((tmp_path / "second").glob("*/*.safetensors"))


@pytest.mark.parametrize("when", ["train", "query.adopt", "train.personalize", "evaluate"])
def test_a_device_that_is_killed_leaves_the_run_and_the_others_end_it(short, devices, when, capsys):
    configs = devices(short())
    run = short()
    grid = RecordingGrid(configs, run)
    grid.before_send = lambda kind: grid.gone.add(1001) if kind == when else None
    from server_strategy.run import run as serve

    report = serve(grid, run, run.run_folder(7))
    out = capsys.readouterr().out
    tested = [user["user_id"] for user in report["users"]]
    assert tested == [c["user-id"] for c in configs if c is not configs[1]]
    assert all(user["arms"]["stage1+2"] is not None for user in report["users"])
    assert f"user '{configs[1]['user-id']}'" in out and "Node Unavailable" in out
    assert Vault(Path(configs[1]["vault"])).has(configs[1]["user-id"]) == (when == "evaluate")


def test_a_device_with_bare_tweets_alone_personalizes_and_is_not_scored(short, devices, tmp_path):
    configs = devices(short())
    record = json.loads(Path(configs[0]["history"]).read_text())[0]
    plain = tmp_path / "plain.jsonl"
    plain.write_text("".join(json.dumps({"text": item["text"]}) + "\n" for item in record["profile"]))
    configs[0]["history"] = str(plain)
    report, _, _ = federate(short(), configs)
    first = report["users"][0]
    assert first["user_id"] == configs[0]["user-id"] and set(first["arms"].values()) == {None}
    assert Vault(Path(configs[0]["vault"])).has(configs[0]["user-id"])
    assert report["arms"]["stage1+2"]["loss_per_token"] > 0
    assert [row["users"] for row in report["rounds"]] == [3, 3]


def test_a_history_that_grew_between_two_messages_is_read_again(short, devices, tmp_path):
    configs = devices(short(max_items=0))
    record = json.loads(Path(configs[0]["history"]).read_text())[0]
    plain = tmp_path / "plain.jsonl"
    lines = [json.dumps({"text": item["text"]}) + "\n" for item in record["profile"]]
    lines += [json.dumps({"input": q["input"], "gold": q["gold"]}) + "\n" for q in record["query"]]
    plain.write_text("".join(lines))
    configs[0]["history"] = str(plain)
    run = short(max_items=0)
    grid = RecordingGrid(configs, run)

    def grow(kind: str) -> None:
        if kind == "train.personalize" and len(plain.read_text().splitlines()) == len(lines):
            plain.write_text("".join(lines) + lines[0] + lines[1])

    grid.before_send = grow
    from server_strategy.run import run as serve

    serve(grid, run, run.run_folder(7))
    (reply,) = [
        m
        for way, node, m in grid.seen
        if way == "up" and node == 1000 and m.metadata.message_type == "train.personalize"
    ]
    assert reply.content.metric_records["0/metrics"]["num-examples"] == len(record["profile"]) + 2


def test_a_new_run_s_entry_takes_the_place_of_the_last_run_s_once_it_has_been_tested(short, devices):
    (config,) = devices(short(), 1)
    vault = Vault(Path(config["vault"]))
    held: dict[str, tuple[int, int]] = {}

    def look(kind: str) -> None:
        held[kind] = (len(list(vault.root.glob("*/personal.*"))), len(list(vault.root.glob("collective-*"))))

    for seed in (0, 1):
        federate(short(min_nodes=1, rounds=1, seed=seed, data="synthetic:2"), [config], before_send=look)
    assert held["train.personalize"] == (1, 2) and held["evaluate"] == (2, 2)
    look("after")
    assert held["after"] == (1, 1) and vault.settings(config["user-id"])["seed"] == 1
