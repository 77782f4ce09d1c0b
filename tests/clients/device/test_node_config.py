"""A SuperNode's node config: what is taken, and one line for what is not."""

import pytest

from clients.device.node_config import NodeConfig, NodeConfigError
from fed.privacy.sealed import new_key_file

ALICE = {"user-id": "alice", "vault": "/var/lib/alice"}


def test_a_device_is_told_from_a_simulated_node():
    device, simulated = NodeConfig.parse(ALICE), NodeConfig.parse({"partition-id": 3, "num-partitions": 8})
    assert device.device and device.user_id == "alice" and device.parts == 0 and device.secret is None
    assert not simulated.device and (simulated.part, simulated.parts) == (3, 8)


def test_every_key_of_a_device_is_taken(tmp_path):
    new_key_file(tmp_path / "key")
    config = NodeConfig.parse(
        ALICE | {"history": "/a/h.jsonl", "base-model": "embedded", "vault-key-file": str(tmp_path / "key")}
    )
    assert str(config.history) == "/a/h.jsonl" and config.base_model == "embedded"
    assert config.secret.kind == "key-file"
    (tmp_path / "p").write_text("a passphrase\n")
    (tmp_path / "p").chmod(0o600)
    assert NodeConfig.parse(ALICE | {"vault-passphrase-file": str(tmp_path / "p")}).secret.kind == "passphrase"


def test_a_number_as_a_user_id_is_a_text():
    assert NodeConfig.parse(ALICE | {"user-id": 42}).user_id == "42"


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        ({}, "a device needs a user-id"),
        ({"partition-id": 1}, "a device needs a user-id"),
        ({"history": "/h.jsonl", "partition-id": 1, "num-partitions": 2}, "a device needs a user-id"),
        ({"user-id": "alice"}, "a device needs a vault"),
        (ALICE | {"user-id": ""}, "user-id must be a text"),
        (ALICE | {"user-id": True}, "user-id must be a text"),
        (ALICE | {"history": 3}, "history must be a text"),
        (ALICE | {"history": "h.jsonl"}, "history must be an absolute path"),
        (ALICE | {"vault": "elsewhere"}, "vault must be an absolute path"),
        (ALICE | {"hist": "/h.jsonl"}, "every key must be one of"),
        (ALICE | {"vault-key-file": "/nowhere/key"}, "the vault's secret must be readable"),
        (ALICE | {"vault-key-file": "/k", "vault-passphrase-file": "/p"}, "exclude each other"),
    ],
)
def test_a_wrong_or_missing_value_is_one_line_whose_public_part_has_no_value(config, rule):
    with pytest.raises(NodeConfigError, match=rule) as error:
        NodeConfig.parse(config)
    assert "\n" not in str(error.value) and rule in error.value.public
    for value in config.values():
        assert len(str(value)) < 3 or str(value) not in error.value.public
