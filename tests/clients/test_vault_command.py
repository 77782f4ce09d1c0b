"""`python -m clients.vault`: what it shows, what it writes, what it erases, and how it refuses."""

from __future__ import annotations

import json
import stat
import subprocess
import sys

import pytest
import torch

from clients import vault as command
from fed.base.skeleton import Skeleton
from fed.edits.easysteer_files import apply_of
from fed.edits.positions import Positions
from fed.methods import make
from fed.privacy.sealed import Secret, new_key_file
from fed.privacy.tensor_files import read_tensors, save_tensors
from fed.privacy.vault import NO_COLLECTIVE, Vault
from fed.resuming import lock
from fed.resuming.lock import holding

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
    layers = sorted({*collective.shape.blocks, *private_layers})
    order = [
        at for layer in layers for at, own in ((everywhere, (1, 2)), (last, private_layers)) if layer in own
    ]  # as config.json lists them
    where = {"sources->base": (None, order)}
    with torch.no_grad():
        logits = loaded({"input_ids": torch.tensor([ids])}, unit_locations=where)[1].logits[0]
        plain = tiny_llama()(input_ids=torch.tensor([ids])).logits[0]
    assert torch.allclose(logits, expected, atol=2e-4)
    assert not torch.allclose(plain, expected, atol=0.1)


# method, changes of its settings, and which of (collective, private) it exports
EDITS = [
    ("perfit", {}, (0, 1)),
    ("perfit", {"stage2-layers": "last1", "stage2-positions": "l2"}, (0, 1)),
    ("reft-p", {}, (1,)),
    ("reft-cp", {}, (1,)),
    ("fedreft", {"stage2-positions": "l2"}, (1,)),
]


@pytest.fixture
def exported(capsys, fill, random_bank, tmp_path):
    """exported(method, format, **settings) -> (the folder, the banks that it holds in order)."""

    def make(method, form, **changes):
        layers = (2,) if "stage2-layers" in changes else (1, 2)
        private = random_bank(rank=2, seed=2, layers=layers, dtype=torch.float32)
        vault = fill("alice", private=private.tensors(0), **{"method": method, **changes})
        if method.startswith("reft"):
            settings = json.dumps({**SETTINGS, "method": method, **changes})
            vault.write("alice", private.tensors(0), base="b" * 16, collective=NO_COLLECTIVE, settings=settings)
        code, _, err = run(capsys, "export", vault.root, "--format", form, "--to", tmp_path / form)
        assert code == 0, err
        banks = (random_bank(rank=3, seed=3, dtype=torch.float32), private)
        picked = next(which for name, given, which in EDITS if (name, given) == (method, changes))
        return tmp_path / form, [banks[place] for place in picked]

    return make


def logits_of(base, ids, edits):
    """Logits under (layer, R, W, b, places) in order, by the paper's formula on the blocks' outputs."""

    def hook(R, W, b, places):
        def edit(_module, _inputs, h):
            out = h.clone()
            for t in places:
                out[0, t] = h[0, t] + R.T @ (W @ h[0, t] + b - R @ h[0, t])
            return out

        return edit

    handles = [base.model.model.layers[layer].register_forward_hook(hook(*one)) for layer, *one in edits]
    try:
        with torch.no_grad():
            return base.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize(("method", "changes", "_"), EDITS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_loreft_method_is_read_back_by_pyreft_bit_for_bit(exported, tiny_llama, method, changes, _):
    pyreft = pytest.importorskip("pyreft")
    folder, banks = exported(method, "pyreft", **changes)
    loaded = pyreft.ReftModel.load(str(folder), tiny_llama())
    expected = [
        (layer, number, bank)
        for layer in (1, 2)
        for number, bank in enumerate(bank for bank in banks if layer in bank.shape.blocks)
    ]
    assert len(loaded.interventions) == len(expected)
    for (name, intervention), (layer, number, bank) in zip(loaded.interventions.items(), expected, strict=True):
        assert name == f"layer_{layer}_comp_block_output_unit_pos_nunit_1#{number}"
        place = bank.shape.blocks.index(layer)
        assert torch.equal(intervention.rotate_layer.weight.mT, bank.R[0, place])
        assert torch.equal(intervention.learned_source.weight, bank.W[0, place].bfloat16())
        assert torch.equal(intervention.learned_source.bias, bank.b[0, place].bfloat16())
    rules = [stage["positions"] for stage in json.loads((folder / "perfit.json").read_text())["stages"]]
    own = changes.get("stage2-positions", "all") if method != "fedreft" else "all"
    assert rules == ["all", own][-len(banks) :]


def as_easysteer_reads(folder):
    """(payload's layer, R, W, b, apply) of each vector, by the rules of EasySteer's `from_pyreft`."""
    steering = json.loads((folder / "steering.json").read_text())
    assert steering["conflict"] == "sequential"
    for vector in steering["vectors"]:
        payload = folder / vector["payload"]
        (weights,), configs = list(payload.glob("*.bin")), list(payload.glob("*config.json"))
        assert len(configs) == 1
        config = json.loads(configs[0].read_text())
        ((layer, component, unit, units, rank, *unused),) = config["representations"]
        assert (component, unit, units) == ("block_output", "pos", 1) and not any(unused)
        assert config["intervention_types"] == ["<class 'pyreft.interventions.LoreftIntervention'>"]
        assert config["easysteer_training"] == {"act_fn": "linear", "apply": vector["apply"]}
        assert weights.name.startswith(f"intkey_layer_{layer}_") and vector["layers"] == [layer]
        state = torch.load(weights, weights_only=True)
        assert set(state) == {"rotate_layer", "weight", "bias"} and state["rotate_layer"].shape[1] == rank
        yield layer, state["rotate_layer"].mT, state["weight"], state["bias"], vector["apply"]


@pytest.mark.parametrize(("method", "changes", "_"), EDITS, ids=lambda value: value if isinstance(value, str) else "")
def test_every_loreft_method_is_served_from_easysteers_layout_with_the_same_logits(
    exported, make_base, reference_logits, method, changes, _
):
    folder, banks = exported(method, "easysteer", **changes)
    base, ids, prompt = make_base("float32"), [5, 9, 20, 33, 41, 7, 12], 5
    served = [(*edit, selected(apply, prompt, len(ids))) for *edit, apply in as_easysteer_reads(folder)]
    own = changes.get("stage2-positions", "all") if method != "fedreft" else "all"
    masks = {"all": [True] * 7, "l2": [False] * 3 + [True] * 2 + [False] * 2}
    rules = ["all", own][-len(banks) :]
    expected = reference_logits(base, ids, [(bank, 0, masks[rule]) for bank, rule in zip(banks, rules, strict=True)])
    assert torch.allclose(logits_of(base, ids, served), expected, atol=1e-5)
    assert not torch.allclose(logits_of(base, ids, []), expected, atol=0.1)


def selected(apply, prompt, total):
    """The places that an ApplySpec selects of a prompt and the tokens generated after it."""

    def window(span):
        start, stop = (prompt + one if one is not None and one < 0 else one for one in span)
        return set(range(max(start, 0), prompt if stop is None else min(stop, prompt)))

    def positions(numbers):
        return {min(one, prompt - 1) if one >= 0 else max(prompt + one, 0) for one in numbers}

    known = {"prompt", "generation", "prompt_positions", "prompt_window", "exclude_prompt_positions"}
    assert set(apply) <= known | {"exclude_prompt_window"}
    places = set(range(prompt)) if apply.get("prompt") == "all" else set()
    places |= set(range(prompt, total)) if apply.get("generation") == "all" else set()
    places |= positions(apply.get("prompt_positions", [])) | window(apply.get("prompt_window", (0, 0)))
    places -= positions(apply.get("exclude_prompt_positions", [])) | window(apply.get("exclude_prompt_window", (0, 0)))
    return sorted(places)


@pytest.mark.parametrize("prompt", [1, 2, 3, 6])
@pytest.mark.parametrize(
    "rule", ["all", "prompt", "last", "answer", "f1", "f3", "l2", "f1+l2", "f3+l3", "all-f1", "all-f4", "prompt-f1"]
)
def test_easysteer_edits_the_tokens_that_the_rule_names(rule, prompt):
    tokens = torch.ones(1, prompt + 2, dtype=torch.bool)
    mask = Positions.parse(rule).mask(tokens & (torch.arange(prompt + 2) < prompt), tokens)
    assert selected(apply_of(Positions.parse(rule)), prompt, prompt + 2) == mask[0].nonzero()[:, 0].tolist()


def test_the_first_tokens_exclusion_is_said_as_easysteer_says_it():
    expected = {"prompt": "all", "generation": "all", "exclude_prompt_positions": [0]}
    assert apply_of(Positions.parse("all-f1")) == expected


def test_an_edit_that_was_federated_without_its_rotation_is_exported_with_the_seeds(capsys, settings, edits, tmp_path):
    run_settings = settings(average="frozen-r", seed=4)
    method = make(run_settings, Skeleton("tiny", 0, 32, 4, ()))
    sent = {"D": edits[0]["W"] - edits[0]["R"], "b": edits[0]["b"]}
    vault = Vault(tmp_path / "vault")
    collective = vault.write_collective(sent)
    vault.write("alice", edits[1], base="b" * 16, collective=collective, settings=run_settings.as_json())
    code, _, err = run(capsys, "export", vault.root, "--format", "easysteer", "--to", tmp_path / "out")
    assert code == 0, err
    whole = method.whole(sent)
    read = [(R, W, b) for _, R, W, b, _ in as_easysteer_reads(tmp_path / "out")]
    for place in (0, 1):  # of each block stage 1, then stage 2
        for name, tensor in zip(("R", "W", "b"), read[2 * place], strict=True):
            assert torch.equal(tensor, whole[name][place])


def test_a_runs_collective_edit_is_exported_from_its_folder(capsys, edits, tmp_path):
    save_tensors(tmp_path / "collective.safetensors", edits[0], {"method": "perfit-stage1"})
    arguments = ("export", tmp_path / "collective.safetensors", "--format", "easysteer", "--to", tmp_path / "out")
    code, _, err = run(capsys, *arguments)
    assert code == 1 and "must lie beside its run's report.json" in err and not (tmp_path / "out").exists()
    (tmp_path / "report.json").write_text(json.dumps({"settings": {**SETTINGS, "method": "perfit-stage1"}}))
    code, out, err = run(capsys, *arguments)
    assert code == 0 and "'everybody'" in out, err
    served = list(as_easysteer_reads(tmp_path / "out"))
    assert [layer for layer, *_ in served] == [1, 2]
    assert torch.equal(torch.stack([R for _, R, *_ in served]), edits[0]["R"])


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


def test_rotate_changes_the_key_and_says_what_it_needs(capsys, fill, key, tmp_path):
    vault = fill("alice", secret=Secret.from_key_file(key))
    new_key_file(tmp_path / "new")
    code, _, err = run(capsys, "rotate", vault.root, "--new-key-file", tmp_path / "new")
    assert code == 1 and "rotate needs what opens the vault now" in err
    code, out, _ = run(capsys, "rotate", vault.root, "--key-file", key, "--new-key-file", tmp_path / "new")
    assert code == 0 and out.startswith("2 files sealed anew")
    assert "checksum holds" in run(capsys, "inspect", vault.root, "--key-file", tmp_path / "new")[1]
    assert run(capsys, "inspect", vault.root, "--key-file", key)[0] == 1


@pytest.mark.parametrize("arguments", [("erase", "--all", "--yes"), ("erase", "--user", "alice", "--yes"), ("rotate",)])
def test_a_vault_that_a_run_holds_is_neither_erased_nor_rotated(capsys, fill, key, tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    vault = fill("alice", secret=Secret.from_key_file(key))
    new_key_file(tmp_path / "new")
    keys = ("--key-file", key, "--new-key-file", tmp_path / "new") if arguments == ("rotate",) else ()
    before = {path: path.read_bytes() for path in vault.root.rglob("*") if path.is_file()}
    with holding(vault.root, "17"):
        code, _, err = run(capsys, arguments[0], vault.root, *arguments[1:], *keys)
    assert code == 1 and "run 17 holds it; wait until that has ended" in err
    assert {path: path.read_bytes() for path in vault.root.rglob("*") if path.is_file()} == before
    assert run(capsys, arguments[0], vault.root, *arguments[1:], *keys)[0] == 0


def test_erase_takes_a_user_whose_files_cannot_be_read(capsys, fill):
    vault = fill("alice", "bob")
    (vault.folder("alice") / "personal.safetensors").write_bytes(b"spoilt")
    assert "cannot be read" in run(capsys, "inspect", vault.root)[1]
    code, out, _ = run(capsys, "erase", vault.root, "--user", "alice", "--yes")
    assert code == 0 and out.startswith("1 files") and not vault.folder("alice").exists() and vault.users() == ["bob"]
