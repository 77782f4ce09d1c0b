"""Private tensors at rest: they come back whole, for the user, base and edit they were made for, or not at all."""

import os
import stat
from pathlib import Path

import pytest
import torch

from fed.privacy import writing
from fed.privacy.sealed import Secret
from fed.privacy.tensor_files import VaultError, WrittenTogether, fingerprint, read_tensors, save_tensors
from fed.privacy.vault import Vault

SETTINGS = '{"seed": 3, "stage2-lr": 0.005}'


def edit(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {"R": torch.randn(2, 3, 8, generator=draw), "b": torch.randn(2, 3, generator=draw)}


def write(vault, user="u", seed=0, base="base-1", collective="edit-1"):
    vault.write(user, edit(seed), base=base, collective=collective, settings=SETTINGS)
    return vault.folder(user) / "personal.safetensors"


def read(vault, user="u", base="base-1", collective="edit-1"):
    return vault.read(user, base=base, collective=collective)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path / "vault")


def test_what_was_kept_comes_back_bit_for_bit_with_its_settings(vault):
    assert not vault.has("u")
    write(vault)
    assert vault.has("u") and not vault.has("v")
    assert same(read(vault), edit())
    assert vault.settings("u") == {"seed": 3, "stage2-lr": 0.005}
    write(vault, seed=1)
    assert same(read(vault), edit(1))


def test_the_file_is_readable_by_its_owner_alone_whatever_the_umask(vault):
    before = os.umask(0)
    try:
        path = write(vault)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]  # nothing half-built is left


@pytest.mark.parametrize(("changes", "named"), [({"base": "base-2"}, "base"), ({"collective": "edit-2"}, "collective")])
def test_an_edit_made_for_another_base_or_collective_edit_is_refused(vault, changes, named):
    write(vault)
    with pytest.raises(VaultError, match=f"has {named} '.*-1', this run needs '.*-2'") as error:
        read(vault, **changes)
    assert "\n" not in str(error.value)


def test_another_users_file_is_refused(vault):
    write(vault, "mallory", seed=1)
    vault.folder("alice").mkdir(parents=True)
    os.replace(vault.folder("mallory") / "personal.safetensors", vault.folder("alice") / "personal.safetensors")
    with pytest.raises(VaultError, match="the vault of user 'alice' has user_id 'mallory'"):
        read(vault, "alice")


def test_a_file_of_another_format_is_refused(vault, monkeypatch):
    monkeypatch.setattr(writing, "FORMAT", "0")
    write(vault)
    monkeypatch.undo()
    with pytest.raises(VaultError, match="has format '0', this run needs '2'"):
        read(vault)


def test_a_missing_file_is_said_to_be_missing(vault):
    with pytest.raises(VaultError, match="there must be a file at .*personal.safetensors"):
        read(vault)
    with pytest.raises(VaultError, match="there must be a file"):
        vault.settings("u")


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:5],
        lambda whole: whole[:-1],
        lambda whole: whole + b"x",
        lambda whole: b"\xff" * 8 + whole[8:],
        lambda whole: whole.replace(b'"F32"', b'"F31"', 1),
        lambda whole: os.urandom(200),
    ],
    ids=["empty", "short header", "cut", "longer", "header size", "dtype", "noise"],
)
def test_a_damaged_file_is_detected(vault, damage):
    path = write(vault)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(VaultError, match="is damaged"):
        read(vault)


def test_a_damaged_number_is_detected(vault):
    path = write(vault)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 0x40
    path.write_bytes(bytes(whole))
    with pytest.raises(VaultError, match="is damaged"):
        read(vault)


HOSTILE = ["../../x", "", ".", "..", "/etc/passwd", "a/b", "a\\b", "a\0b", "x" * 5000, "x" * 5001, "дом", "дон", "ａ",
           "con", "CON", "a b", "a_b", "a?b", "é", "e\u0301", "\n", "user\r\n", "~", "-rf", "....", "_-.",
           "💥"]  # fmt: skip


@pytest.mark.parametrize("user", HOSTILE)
def test_a_hostile_user_id_stays_inside_the_root(vault, tmp_path, user):
    path = write(vault, user)
    assert path.is_file() and vault.has(user)
    folder = vault.folder(user)
    assert folder.resolve().parent == vault.root.resolve() and len(folder.name) < 100
    assert folder.name.isascii() and folder.name.isprintable() and not folder.name.startswith(".")
    assert [entry.name for entry in tmp_path.iterdir()] == ["vault"]
    assert same(read(vault, user), edit())


def test_hostile_user_ids_do_not_collide(vault):
    for seed, user in enumerate(HOSTILE):
        write(vault, user, seed=seed)
    for seed, user in enumerate(HOSTILE):
        assert same(read(vault, user), edit(seed))
    names = {vault.folder(user).name.lower() for user in HOSTILE}  # file systems may ignore case
    assert len(names) == len(HOSTILE)


def test_an_ordinary_id_can_be_read_in_the_folders_name(vault):
    assert vault.folder("test-0003").name.startswith("test-0003-")


def test_a_forgotten_user_is_gone_and_the_others_stay(vault):
    write(vault, "a"), write(vault, "b", seed=1)
    vault.erase("a")
    assert not vault.has("a") and not vault.folder("a").exists()
    assert same(read(vault, "b"), edit(1))
    vault.erase("a")  # once more: nothing there, nothing happens
    vault.erase("never seen")


def test_tensors_that_cannot_be_erased_are_not_passed_over_in_silence(vault, monkeypatch):
    write(vault)

    def refuse(*_args, **_kwargs):
        raise PermissionError("read-only file system")

    for name in ("unlink", "rmdir", "remove"):
        monkeypatch.setattr(os, name, refuse)
    with pytest.raises(OSError):
        vault.erase("u")


@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(vault, monkeypatch, step):
    path = write(vault)

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="no space left"):
        write(vault, seed=1)
    monkeypatch.undo()
    assert same(read(vault), edit())
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_the_old_file_is_whole_until_the_new_one_replaces_it(vault, monkeypatch):
    path = write(vault)
    replace = os.replace

    def check(source, target):
        assert same(read(vault), edit())
        assert same(read_tensors(Path(source))[0], edit(1))
        replace(source, target)

    monkeypatch.setattr(os, "replace", check)
    write(vault, seed=1)
    monkeypatch.undo()
    assert same(read(vault), edit(1)) and path.is_file()


def test_the_collective_edit_is_kept_under_its_fingerprint(vault):
    name = vault.write_collective(edit())
    assert name == fingerprint(edit()) and same(vault.read_collective(name), edit())
    assert vault.write_collective(edit(1)) != name and same(vault.read_collective(name), edit())
    with pytest.raises(VaultError, match="there must be a file"):
        vault.read_collective("0" * 16)


def test_an_altered_collective_edit_is_refused(vault):
    name = vault.write_collective(edit())
    (path,) = vault.root.glob("collective-*.safetensors")
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 0x01
    path.write_bytes(bytes(whole))
    with pytest.raises(VaultError, match="is damaged"):
        vault.read_collective(name)


def test_a_fingerprint_is_over_names_shapes_and_values_in_any_order():
    one = edit()
    print_of_one = fingerprint(one)
    assert len(print_of_one) == 16 and int(print_of_one, 16) >= 0
    assert fingerprint(dict(reversed(one.items()))) == print_of_one
    assert fingerprint({name: t.clone().requires_grad_() for name, t in one.items()}) == print_of_one
    assert fingerprint({"R": one["R"].mT.contiguous().mT, "b": one["b"]}) == print_of_one  # not of strides
    others = [
        {"R": one["R"], "c": one["b"]},
        {"R": one["R"].view(2, 8, 3), "b": one["b"]},
        {"R": one["R"], "b": one["b"].double()},
        {"R": one["R"], "b": one["b"].nextafter(torch.tensor(9.0))},
        {"R": one["R"]},
    ]
    assert len({print_of_one, *map(fingerprint, others)}) == 6


def test_a_saved_file_keeps_tensors_and_header(tmp_path):
    path = tmp_path / "deep" / "er" / "x.safetensors"
    save_tensors(path, {"a": torch.arange(6).view(2, 3).T}, {"k": "ü\n"})
    tensors, header = read_tensors(path)
    assert tensors["a"].tolist() == [[0, 3], [1, 4], [2, 5]] and header["k"] == "ü\n"


def test_what_is_kept_beside_the_private_edit_is_the_owners_alone_and_goes_with_the_user(tmp_path):
    vault = Vault(tmp_path)
    assert vault.kept("zoe", "stage1") is None
    vault.keep("zoe", "stage1", {"b": torch.ones(2)}, {"run": "7"})
    tensors, header = vault.kept("zoe", "stage1")
    assert torch.equal(tensors["b"], torch.ones(2)) and header == {"run": "7"}
    assert vault.kept("zoe", "profile") is None and vault.kept("adam", "stage1") is None
    assert not vault.has("zoe")  # it is no private edit
    (file,) = vault.folder("zoe").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_bytes(b"x")
    with pytest.raises(VaultError, match="damaged"):
        vault.kept("zoe", "stage1")
    vault.erase("zoe")
    assert vault.kept("zoe", "stage1") is None


def test_a_changed_header_is_detected(vault):
    path = write(vault)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"stage2-lr", b"stage3-lr"))
    with pytest.raises(VaultError, match="damaged: the checksum of its header"):
        read(vault)


def test_a_replaced_version_does_not_stay_in_its_blocks(vault):
    path = write(vault)
    before, blocks = path.read_bytes(), os.open(path, os.O_RDONLY)
    write(vault, seed=1)
    left = os.pread(blocks, len(before), 0)
    os.close(blocks)
    assert len(left) == len(before) and before[-32:] not in left and b"alice" not in left


def test_what_a_killed_process_left_half_written_is_wiped_and_a_living_ones_stays(vault):
    folder = write(vault).parent
    dead, living = folder / ".personal.safetensors.999999999", folder / f".personal.vault.{os.getppid()}"
    for path in (dead, living):
        path.write_bytes(b"half")
    write(vault, seed=1)
    assert not dead.exists() and living.exists()
    assert vault.erase("u") == 2 and not folder.exists()


KEY = Secret("key-file", bytes(range(32)))


@pytest.fixture
def sealed_vault(vault):
    return Vault(vault.root, KEY)


def test_a_sealed_vault_keeps_its_numbers_from_the_disk(sealed_vault):
    write(sealed_vault)
    (path,) = sealed_vault.folder("u").iterdir()
    whole = path.read_bytes()
    assert path.name == "personal.vault" and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert same(read(sealed_vault), edit())
    for tensor in edit().values():
        for raw in (tensor.numpy().tobytes(), tensor.to(torch.bfloat16).view(torch.uint8).numpy().tobytes()):
            assert not any(raw[i : i + 16] in whole for i in range(0, len(raw) - 15, 16))
    assert sealed_vault.settings("u")["seed"] == 3 and Vault(sealed_vault.root).header("u")["base"] == "base-1"


@pytest.mark.parametrize(("changes", "named"), [({"base": "base-2"}, "base"), ({"collective": "edit-2"}, "collective")])
def test_a_sealed_edit_made_for_another_base_or_collective_is_refused(sealed_vault, changes, named):
    write(sealed_vault)
    with pytest.raises(VaultError, match=f"has {named} '.*-1', this run needs '.*-2'"):
        read(sealed_vault, **changes)


def test_a_sealed_vault_opens_for_its_own_secret_alone(vault, sealed_vault):
    write(sealed_vault)
    for other, words in (
        (None, "is encrypted; give its vault-key-file"),
        (Secret("key-file", bytes(32)), "not its key-file, or the file has been altered"),
        (Secret.from_passphrase("p"), "sealed with a key file, and a passphrase was given"),
    ):
        assert Vault(vault.root, other).has("u")
        with pytest.raises(VaultError, match=words):
            read(Vault(vault.root, other))


def test_a_vault_with_a_secret_refuses_a_file_that_anybody_could_have_put_there(vault, sealed_vault):
    write(vault)
    with pytest.raises(VaultError, match="is not encrypted, but a key or passphrase is given"):
        read(sealed_vault)


@pytest.mark.parametrize("first_sealed", [True, False])
def test_turning_encryption_on_or_off_leaves_no_file_of_the_other_kind(vault, sealed_vault, first_sealed):
    first, second = (sealed_vault, vault) if first_sealed else (vault, sealed_vault)
    write(first)
    write(second, seed=1)
    assert len(list(vault.folder("u").iterdir())) == 1 and same(read(second), edit(1))
    assert vault.users() == ["u"]


def test_a_sealed_file_under_another_users_name_is_refused(sealed_vault):
    write(sealed_vault, "mallory")
    sealed_vault.folder("alice").mkdir(parents=True)
    os.replace(sealed_vault.folder("mallory") / "personal.vault", sealed_vault.folder("alice") / "personal.vault")
    with pytest.raises(VaultError, match="the vault of user 'alice' has user_id 'mallory'"):
        read(sealed_vault, "alice")


def test_erasing_everything_takes_what_the_vault_made_and_nothing_else(vault, sealed_vault):
    write(vault, "a"), write(sealed_vault, "b", seed=1)
    vault.write_collective(edit())
    others = [vault.root / "notes.txt", vault.root / "photos" / "me.jpg", vault.folder("a") / "diary"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert vault.users() == ["a", "b"]
    assert vault.erase_all() == 4  # a, b and the record of its versions, the collective edit
    assert vault.users() == [] and not vault.folder("b").exists()
    assert sorted(p for p in vault.root.rglob("*") if p.is_file()) == sorted(others)
    assert vault.erase_all() == 0


def test_what_is_kept_beside_a_sealed_edit_is_sealed_too(sealed_vault):
    write(sealed_vault)
    sealed_vault.keep("u", "profile", {"text": torch.arange(64, dtype=torch.uint8)}, {"key": "k"})
    path = sealed_vault.folder("u") / "personal.profile.vault"
    assert bytes(range(64)) not in path.read_bytes()
    tensors, header = sealed_vault.kept("u", "profile")
    assert tensors["text"].tolist() == list(range(64)) and header == {"key": "k"}
    with pytest.raises(VaultError, match="keeps as 'profile'"):
        Vault(sealed_vault.root, Secret("key-file", bytes(32))).kept("u", "profile")
    os.replace(path, path.with_name("personal.stage1.vault"))
    with pytest.raises(VaultError, match="keeps as 'stage1' is another's"):
        sealed_vault.kept("u", "stage1")
    assert sealed_vault.users() == ["u"] and sealed_vault.erase("u") == 3  # the record of versions too


LORA = '{"method": "oppu", "task": "LaMP_7"}'
PERFIT = '{"method": "perfit", "task": "LaMP_7"}'


def keep(vault, seed, collective, settings=PERFIT, user="u"):
    vault.write(user, edit(seed), base="base-1", collective=collective, settings=settings)


@pytest.mark.parametrize("sealed", [False, True])
def test_an_entry_of_another_use_stays_until_the_new_one_has_been_tested(vault, sealed_vault, sealed):
    own = sealed_vault if sealed else vault
    keep(own, 1, "edit-1")
    keep(own, 2, "edit-2")
    keep(own, 3, "edit-2", LORA)
    # Each is there for its use; what opens without one is the last.
    which = {"method": "perfit", "task": "LaMP_7"}
    assert same(own.read("u", base="base-1", collective="edit-1", **which), edit(1))
    assert same(own.read("u", base="base-1", collective="edit-2", **which), edit(2))
    assert same(own.read("u", base="base-1", collective="edit-2", method="oppu", task="LaMP_7"), edit(3))
    assert same(own.open("u").tensors, edit(3)) and own.users() == ["u"]
    assert own.has("u", collective="edit-1") and not own.has("u", collective="edit-3")
    assert own.has("u", collective="edit-2", method="oppu") and not own.has("u", collective="edit-1", method="oppu")
    # The older one of the same method and task goes once the new one is tested; the other method's stays.
    assert own.retire(["u"], method="perfit", task="LaMP_7", collective="edit-2") == 1
    assert not own.has("u", collective="edit-1")
    assert same(own.read("u", base="base-1", collective="edit-2", **which), edit(2))
    assert same(own.open("u").tensors, edit(3))
    # Written again, an entry takes the place of the one of its use.
    keep(own, 4, "edit-2")
    assert same(own.open("u").tensors, edit(4)) and len(list(own.folder("u").iterdir())) == 2


def test_an_entry_of_another_method_or_task_is_refused(vault):
    keep(vault, 1, "edit-1", LORA)
    for use in ({"method": "perfit"}, {"task": "LaMP_4"}, {"method": "oppu", "task": "LaMP_4"}):
        with pytest.raises(VaultError, match="is of another method or task"):
            vault.read("u", base="base-1", collective="edit-1", **use)
    assert same(vault.read("u", base="base-1", collective="edit-1", method="oppu", task="LaMP_7"), edit(1))


@pytest.mark.parametrize("to_sealed", [True, False])
def test_what_lies_beside_does_not_stay_in_the_clear_once_the_vault_has_a_secret(vault, sealed_vault, to_sealed):
    before, after = (vault, sealed_vault) if to_sealed else (sealed_vault, vault)
    before.keep("u", "profile", edit(1), {})
    after.keep("u", "profile", edit(2), {})
    assert len(list(vault.folder("u").iterdir())) == 1 and before.kept("u", "profile") is None
    assert same(after.kept("u", "profile")[0], edit(2))


def test_a_write_that_was_cut_short_between_its_renames_leaves_the_latest_entry_to_open(vault, monkeypatch):
    keep(vault, 1, "edit-1")

    def fail(*_args, **_words):
        raise OSError("no space left on device")

    monkeypatch.setattr(WrittenTogether, "add", fail)
    with pytest.raises(OSError, match="no space"):
        keep(vault, 2, "edit-2")
    monkeypatch.undo()
    assert same(vault.open("u").tensors, edit(1)) and same(read(vault), edit(1))


def test_a_collective_edit_stays_as_long_as_an_entry_needs_it(vault):
    first, second, never_trained = (vault.write_collective(edit(seed)) for seed in (1, 2, 3))
    keep(vault, 1, first), keep(vault, 2, first, user="v")
    keep(vault, 3, second)
    vault.retire(["u"], method="perfit", task="LaMP_7", collective=second)
    assert vault.has("v", collective=first)
    for name in (first, second):
        assert vault.read_collective(name)
    with pytest.raises(VaultError, match="there must be a file"):
        vault.read_collective(never_trained)
    vault.erase("v")
    with pytest.raises(VaultError, match="there must be a file"):
        vault.read_collective(first)
    assert vault.read_collective(second)
    for name in ("../x", "collective", "", "F" * 16):
        with pytest.raises(VaultError, match="must be 16 hex digits"):
            vault.read_collective(name)


def test_the_vault_s_folders_are_the_owner_s_alone_even_where_they_were_not(vault):
    vault.root.mkdir(mode=0o755)
    vault.folder("u").mkdir(mode=0o755)
    before = os.umask(0)
    try:
        write(vault), vault.keep("v", "profile", edit(), {})
    finally:
        os.umask(before)
    for folder in (vault.root, vault.folder("u"), vault.folder("v")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_older_sealed_file_that_is_put_back_is_refused(sealed_vault):
    path = sealed_vault.folder("u") / "personal.vault"
    write(sealed_vault)
    older = path.read_bytes()
    write(sealed_vault, seed=1)
    newer = path.read_bytes()
    path.write_bytes(older)
    for opened in (lambda: sealed_vault.open("u"), lambda: read(sealed_vault)):
        with pytest.raises(VaultError, match="is of version 1, and version 2 was written after it"):
            opened()
    path.write_bytes(newer)
    assert same(read(sealed_vault), edit(1))
    # Also where it was of another use; and of what lies beside.
    write(sealed_vault, seed=2, collective="edit-2")
    path.write_bytes(newer)
    with pytest.raises(VaultError, match="was written after it"):
        sealed_vault.open("u")
    sealed_vault.keep("u", "profile", edit(), {})
    beside = sealed_vault.folder("u") / "personal.profile.vault"
    older = beside.read_bytes()
    sealed_vault.keep("u", "profile", edit(1), {})
    beside.write_bytes(older)
    with pytest.raises(VaultError, match="was written after it"):
        sealed_vault.kept("u", "profile")


def test_the_record_of_versions_is_sealed_and_cannot_be_left_out_or_be_another_s(vault, sealed_vault):
    write(sealed_vault), write(sealed_vault, "v")
    of_u, of_v = (vault.root / f"versions-{vault.folder(user).name}.vault" for user in "uv")
    assert stat.S_IMODE(of_u.stat().st_mode) == 0o600
    mine = of_u.read_bytes()
    of_u.write_bytes(of_v.read_bytes())
    with pytest.raises(VaultError, match="is another's"):
        sealed_vault.open("u")
    of_u.unlink()
    with pytest.raises(VaultError, match="has no record of it"):
        sealed_vault.open("u")
    of_u.write_bytes(mine)
    assert same(sealed_vault.open("u").tensors, edit())


@pytest.mark.parametrize("sealed", [False, True])
def test_a_vault_that_was_written_before_there_were_versions_opens_and_goes_on(
    vault, sealed_vault, monkeypatch, sealed
):
    own = sealed_vault if sealed else vault
    monkeypatch.setattr(type(own), "_next", lambda *_: None)
    monkeypatch.setattr(type(own), "_record", lambda *_: None)
    write(own), own.keep("u", "profile", edit(), {})
    monkeypatch.undo()
    assert b"version" not in (own.folder("u") / ("personal.vault" if sealed else "personal.safetensors")).read_bytes()
    assert same(own.open("u").tensors, edit()) and same(read(own), edit()) and own.kept("u", "profile")
    write(own, seed=1)
    assert same(read(own), edit(1))


def test_erasing_needs_no_header_and_takes_answers_and_what_lies_beside(vault, sealed_vault):
    for own, user in ((vault, "a"), (sealed_vault, "b")):
        write(own, user), own.keep(user, "profile", edit(), {})
        answers = own.folder(user) / "answers"
        answers.mkdir()
        (answers / "base.json").write_text("what I would say")
        for path in own.folder(user).glob("personal.*"):
            path.write_bytes(b"spoilt")
    assert vault.users() == [] and len(vault.unreadable()) == 2
    assert vault.erase("a") == 3 and not vault.folder("a").exists()
    assert vault.erase_all() == 4 and list(vault.root.iterdir()) == []


def test_erasing_follows_no_link(vault, tmp_path):
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    for name in ("personal.safetensors", "deep/personal.x"):
        (outside / name).write_text("somebody else's")
    write(vault, "a")
    (vault.folder("a") / "answers").symlink_to(outside)
    (vault.folder("a") / "personal.profile.safetensors").symlink_to(outside / "personal.safetensors")
    vault.folder("b").symlink_to(outside)
    (vault.root / "journal.json").symlink_to(outside / "personal.safetensors")
    assert vault.users() == ["a"]
    assert vault.erase("b") == 1 and not vault.folder("b").is_symlink()
    vault.folder("b").symlink_to(outside)
    vault.erase_all()
    assert not vault.folder("a").exists() and not (vault.root / "journal.json").is_symlink()
    assert sorted(p.name for p in outside.rglob("*")) == ["deep", "personal.safetensors", "personal.x"]
    assert {p.read_text() for p in outside.rglob("personal.*")} == {"somebody else's"}
