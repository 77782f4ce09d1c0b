"""Files that wait for the disk together: each old or new and whole at any moment, each failing alone."""

from __future__ import annotations

import errno
import os
import stat

import pytest
import torch

from fed import atomic_write
from fed.atomic_write import TOGETHER, beside
from fed.privacy.tensor_files import WrittenTogether
from fed.privacy.vault import Vault

USERS = ("ann", "bob", "eve")
OF = {"base": "b" * 16, "collective": "c" * 16, "settings": "{}"}


@pytest.fixture
def steps(monkeypatch):
    """What the system is asked for, in order: "file" and "folder" for a sync, "all" for one of all, "name" a rename."""
    seen: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor):
        seen.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def rename(source, target):
        seen.append("name")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    monkeypatch.setattr(atomic_write, "_syncfs", lambda: lambda descriptor: seen.append("all"))
    return seen


def edits(value, users=USERS):
    return {user: ({"W": torch.full((4,), float(value))}, "") for user in users}


def value_of(vault, user):
    return float(vault.read(user, base=OF["base"], collective=OF["collective"])["W"][0])


def test_no_name_points_to_a_content_that_is_not_on_the_disk_and_the_vaults_folder_is_synced_once(tmp_path, steps):
    vault = Vault(tmp_path / "vault")
    assert vault.write_all(edits(1), **OF) == {}
    assert steps == 3 * ["file"] + 3 * ["name"] + 4 * ["folder"]  # of each user, and the one that theirs are new in
    assert [value_of(vault, user) for user in USERS] == [1.0] * 3


def test_many_users_wait_for_the_disk_twice_in_all(tmp_path, steps):
    users = [f"user-{number}" for number in range(TOGETHER)]
    vault = Vault(tmp_path / "vault")
    assert vault.write_all(edits(1, users), **OF) == {}
    assert steps == ["all", *TOGETHER * ["name"], "all"]
    assert {value_of(vault, user) for user in users} == {1.0}


def test_where_all_cannot_be_synced_at_once_each_is_asked_and_fails_alone(tmp_path, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    bad = tmp_path / "5"
    sync = os.fsync

    def fsync(descriptor):
        sync(descriptor)
        if beside(bad).exists() and os.path.samestat(os.fstat(descriptor), beside(bad).stat()):
            broken(descriptor)

    monkeypatch.setattr(atomic_write, "_syncfs", lambda: broken)
    monkeypatch.setattr(os, "fsync", fsync)
    with WrittenTogether() as together:
        for number in range(TOGETHER):
            together.add(tmp_path / str(number), b"new")
        problems = together.finish()
    assert list(problems) == [bad] and str(bad) in str(problems[bad])
    assert sorted(path.name for path in tmp_path.iterdir()) == [str(n) for n in range(TOGETHER) if n != 5]


def test_this_system_syncs_a_whole_file_system_where_it_says_what_failed(tmp_path):
    call = atomic_write._syncfs()
    if call is None:
        pytest.skip("no syncfs here, or one of a kernel before 5.8")
    with (tmp_path / "file").open("wb") as file:
        call(file.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        call(10**6)


@pytest.mark.parametrize(("count", "step"), [*((3, step) for step in range(9)), *((8, step) for step in range(10))])
def test_a_process_that_is_killed_at_any_step_leaves_each_file_old_or_new(tmp_path, monkeypatch, count, step):
    old, new = bytes(3000), b"\xff" * 4000
    paths = [tmp_path / str(number) / "file" for number in range(count)]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(old)
    pid = os.fork()
    if not pid:
        left = iter(range(step, -1, -1))

        def counted(call):
            return lambda *given: call(*given) if next(left) else os._exit(9)

        monkeypatch.setattr(os, "fsync", counted(os.fsync))
        monkeypatch.setattr(os, "replace", counted(os.replace))
        monkeypatch.setattr(atomic_write, "_syncfs", lambda: counted(lambda descriptor: None))
        with WrittenTogether() as together:
            for path in paths:
                together.add(path, new)
            together.finish()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    contents = 3 if count < TOGETHER else 1  # syncs before the first name
    renamed = min(count, max(0, step - contents))
    assert [path.read_bytes() for path in paths] == [new] * renamed + [old] * (count - renamed)


def test_a_user_whose_file_cannot_be_written_fails_alone(tmp_path, monkeypatch):
    vault = Vault(tmp_path)
    assert vault.write_all(edits(1), **OF) == {}
    replace = os.replace

    def rename(source, target):
        if vault.folder("bob") in target.parents:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", rename)
    problems = vault.write_all(edits(2), **OF)
    assert list(problems) == ["bob"] and str(vault.folder("bob")) in str(problems["bob"])
    assert [value_of(vault, user) for user in USERS] == [2.0, 1.0, 2.0]
    assert all(len(list(vault.folder(user).iterdir())) == 1 for user in USERS)


def test_an_interruption_leaves_nothing_beside(tmp_path):
    with pytest.raises(KeyboardInterrupt), WrittenTogether() as together:
        together.add(tmp_path / "file", b"new")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
