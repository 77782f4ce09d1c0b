"""A vault under another key: all of it or nothing, and once more where it was cut short."""

import pytest
import torch

from fed.privacy import rotation
from fed.privacy.rotation import rotate
from fed.privacy.sealed import Secret
from fed.privacy.tensor_files import VaultError
from fed.privacy.vault import Vault

OLD, NEW = (Secret("key-file", bytes([number]) * 32) for number in (1, 2))


@pytest.fixture
def root(tmp_path):
    vault = Vault(tmp_path / "vault", OLD)
    for user in ("a", "b"):
        vault.write(user, {"b": torch.ones(3)}, base="x", collective="none", settings="{}")
    vault.keep("a", "profile", {"text": torch.zeros(4)}, {"key": "k"})
    return vault.root


def opens(root, secret) -> bool:
    vault = Vault(root, secret)
    try:
        return all(torch.equal(vault.open(user).tensors["b"], torch.ones(3)) for user in ("a", "b")) and (
            vault.kept("a", "profile") is not None
        )
    except VaultError:
        return False


def test_what_the_old_key_sealed_the_new_one_opens_and_the_old_one_does_not(root):
    assert rotate(root, OLD, NEW) == 5  # two entries, two records of versions, a profile
    assert opens(root, NEW) and not opens(root, OLD)
    assert rotate(root, OLD, NEW) == 0
    Vault(root, NEW).write("a", {"b": torch.ones(3)}, base="x", collective="none", settings="{}")
    assert opens(root, NEW)


def test_a_wrong_key_or_a_spoilt_file_changes_nothing(root):
    before = {path: path.read_bytes() for path in root.rglob("*.vault")}
    with pytest.raises(VaultError, match="nothing was changed"):
        rotate(root, NEW, Secret("key-file", bytes(32)))
    last = sorted(before)[-1]
    last.write_bytes(before[last][:-1])
    with pytest.raises(VaultError, match="nothing was changed"):
        rotate(root, OLD, NEW)
    last.write_bytes(before[last])
    assert {path: path.read_bytes() for path in root.rglob("*.vault")} == before and opens(root, OLD)


def test_a_rotation_that_was_cut_short_is_finished_by_another(root, monkeypatch):
    written, write = [], rotation.write_file

    def twice(path, *rest, **words):
        if len(written) == 2:
            raise OSError("no power")
        written.append(path)
        write(path, *rest, **words)

    monkeypatch.setattr(rotation, "write_file", twice)
    with pytest.raises(OSError, match="no power"):
        rotate(root, OLD, NEW)
    monkeypatch.undo()
    assert not opens(root, OLD) and not opens(root, NEW)
    assert rotate(root, OLD, NEW) == 3 and opens(root, NEW)


def test_a_passphrase_can_take_the_place_of_a_key(root):
    phrase = Secret.from_passphrase("correct horse")
    assert rotate(root, OLD, phrase) == 5 and opens(root, phrase)
