"""`python -m clients.vault`: what it shows, what it writes, what it erases, and how it refuses."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import pytest
import torch

from clients import vault as command
from fed.privacy.sealed import Secret, new_key_file
from fed.privacy.tensor_files import read_tensors
from fed.privacy.vault import Vault

SETTINGS = {
    "task": "LaMP_7",
    "method": "perfit",
    "layers": "1,2",
    "stage1-rank": 3,
    "stage2-rank": 2,
    "positions": "all",
    "stage2-positions": "same",
    "seed": 0,
}


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = command.main([str(one) for one in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def edits(random_bank):
    """(collective tensors, private tensors), float32."""
    return tuple(random_bank(rank=rank, seed=rank, dtype=torch.float32).tensors(0) for rank in (3, 2))


@pytest.fixture
def key(tmp_path):
    new_key_file(tmp_path / "key")
    return tmp_path / "key"


@pytest.fixture
def fill(tmp_path, edits):
    """fill(users, secret) -> a vault that holds them."""

    def make(*users: str, secret: Secret | None = None, private=None, **changes: object) -> Vault:
        vault = Vault(tmp_path / "vault", secret)
        collective = vault.write_collective(edits[0])
        for user in users:
            settings = json.dumps({**SETTINGS, **changes})
            vault.write(user, private or edits[1], base="b" * 16, collective=collective, settings=settings)
        return vault

    return make


def test_inspect_shows_the_header_and_the_shapes_and_no_number(capsys, fill, edits):
    vault = fill("alice", "bob")
    code, out, _ = run(capsys, "inspect", vault.root)
    assert code == 0
    for words in ("alice", "bob", "not encrypted", "b" * 16, "R (2, 2, 32)", 'layers="1,2"', "checksum holds"):
        assert words in out
    assert f"{edits[1]['R'][0, 0, 0]:.3f}" not in out
    assert "bob" not in run(capsys, "inspect", vault.root, "--user", "alice")[1]


def test_inspect_shows_a_closed_vaults_header_and_says_that_it_is_not_confirmed(capsys, fill, key):
    vault = fill("alice", secret=Secret.from_key_file(key))
    _, out, _ = run(capsys, "inspect", vault.root)
    assert "encrypted (AES-256-GCM)" in out and "not confirmed" in out and "R (2" not in out
    _, out, _ = run(capsys, "inspect", vault.root, "--key-file", key)
    assert "R (2, 2, 32)" in out and "checksum holds" in out


def test_export_as_safetensors_holds_both_stages_bit_for_bit(capsys, fill, edits, tmp_path, key):
    vault = fill("alice", secret=Secret.from_key_file(key))
    to = tmp_path / "alice.safetensors"
    code, out, _ = run(capsys, "export", vault.root, "--key-file", key, "--to", to)
    assert code == 0 and "not encrypted" in out and stat.S_IMODE(to.stat().st_mode) == 0o600
    tensors, header = read_tensors(to)
    for stage, own in zip(("stage1", "stage2"), edits, strict=True):
        for name, tensor in own.items():
            assert torch.equal(tensors[f"{stage}.{name}"], tensor)
    assert header["user_id"] == "alice"
    code, _, err = run(capsys, "export", vault.root, "--key-file", key, "--to", to)
    assert code == 1 and "nothing is yet" in err


@pytest.mark.parametrize("private_layers", [(1, 2), (2,), (2, 3)], ids=["same layers", "fewer", "others"])
def test_an_export_in_pyrefts_format_gives_the_same_logits_in_pyreft_itself(
    capsys, fill, edits, tmp_path, make_base, tiny_llama, reference_logits, random_bank, private_layers
):
    pyreft = pytest.importorskip("pyreft")
    private = random_bank(rank=2, seed=2, layers=private_layers, dtype=torch.float32)
    words = "same" if private_layers == (1, 2) else ",".join(map(str, private_layers))
    vault = fill("alice", private=private.tensors(0), **{"stage2-layers": words})
    code, _, err = run(capsys, "export", vault.root, "--format", "pyreft", "--to", tmp_path / "out")
    assert code == 0, err
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "out").iterdir()} == {0o600}
    ids = [5, 9, 20, 33, 41, 7, 12]
    collective = random_bank(rank=3, seed=3, dtype=torch.float32)
    stages = [(collective, 0, [1] * 7), (private, 0, [0] * 5 + [1, 1])]
    expected = reference_logits(make_base("float32"), ids, stages)

    loaded = pyreft.ReftModel.load(str(tmp_path / "out"), tiny_llama())
    # Two lines that a user adds for float32: pyreft rounds W and b to bfloat16 as it loads them.
    for name, intervention in loaded.interventions.items():
        intervention.learned_source.float()
        state = torch.load(tmp_path / "out" / f"intkey_{name}.bin", weights_only=True)
        intervention.learned_source.load_state_dict({"weight": state["weight"], "bias": state["bias"]})
    everywhere, last = [list(range(7))], [[5, 6]]
    layers = sorted({*collective.shape.layers, *private_layers})
    order = [
        at for layer in layers for at, own in ((everywhere, (1, 2)), (last, private_layers)) if layer in own
    ]  # as config.json lists them
    where = {"sources->base": (None, order)}
    with torch.no_grad():
        logits = loaded({"input_ids": torch.tensor([ids])}, unit_locations=where)[1].logits[0]
        plain = tiny_llama()(input_ids=torch.tensor([ids])).logits[0]
    assert torch.allclose(logits, expected, atol=2e-4)
    assert not torch.allclose(plain, expected, atol=0.1)


def test_only_loreft_edits_go_to_pyreft(capsys, fill, tmp_path):
    vault = fill("alice", method="oppu")
    code, _, err = run(capsys, "export", vault.root, "--format", "pyreft", "--to", tmp_path / "out")
    assert code == 1 and "this vault is of 'oppu'" in err and not (tmp_path / "out").exists()


def test_erase_takes_one_user_and_says_what_flash_media_keep(capsys, fill):
    vault = fill("alice", "bob")
    code, out, _ = run(capsys, "erase", vault.root, "--user", "alice", "--yes")
    assert code == 0 and vault.users() == ["bob"] and "flash media" in out and out.startswith("1 files")
    code, out, _ = run(capsys, "erase", vault.root, "--all", "--yes")
    assert code == 0 and vault.users() == [] and not list(vault.root.glob("*"))


def test_erase_asks_first_and_takes_no_pipe_for_an_answer(capsys, fill, monkeypatch):
    vault = fill("alice")
    code, _, err = run(capsys, "erase", vault.root)
    assert code == 1 and "say --yes" in err and vault.has("alice")
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer, left in (("n", True), ("", True), ("y", False)):
        monkeypatch.setattr("builtins.input", lambda _, said=answer: said)
        assert run(capsys, "erase", vault.root)[0] == 0
        assert vault.has("alice") == left


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "/nowhere"], "must be a folder"),
        (["inspect", "{vault}", "--user", "carol"], "got 'carol'; it holds: alice, bob"),
        (["export", "{vault}", "--to", "x"], "got None; it holds: alice, bob"),
        (["export", "{vault}", "--user", "bob", "--to", "x", "--key-file", "/nowhere"], "must be readable"),
        (["export", "{vault}", "--user", "bob", "--to", "x", "--key-file", "{key}"], "is not encrypted"),
        (["new-key", "{key}"], "never overwritten"),
    ],
)
def test_a_mistake_is_one_clear_line(capsys, fill, key, arguments, words):
    vault = fill("alice", "bob")
    code, out, err = run(capsys, *(a.format(vault=vault.root, key=key) for a in arguments))
    assert code == 1 and out == "" and words in err
    assert err.startswith("error: ") and len(err.splitlines()) == 1


def test_a_passphrase_is_asked_for_and_appears_nowhere(capsys, fill, monkeypatch):
    word = "correct horse"
    vault = fill("alice", secret=Secret.from_passphrase(word))
    monkeypatch.setattr("getpass.getpass", lambda _: word)
    code, out, _ = run(capsys, "inspect", vault.root, "--passphrase")
    assert code == 0 and "checksum holds" in out and word not in out
    monkeypatch.setattr("getpass.getpass", lambda _: "wrong word")
    code, out, err = run(capsys, "inspect", vault.root, "--passphrase")
    assert code == 1 and "not its passphrase" in err and "wrong word" not in out + err


def test_the_module_runs_as_a_command(fill):
    vault = fill("alice")
    done = subprocess.run(
        [sys.executable, "-m", "clients.vault", "inspect", str(vault.root)], capture_output=True, text=True
    )
    assert done.returncode == 0 and "alice" in done.stdout, done.stderr
