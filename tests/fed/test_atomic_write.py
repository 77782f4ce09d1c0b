"""Files by rename: whole or not at all, whatever fails, and with the mode asked for."""

import errno
import os
import re
import stat

import pytest
import torch

from fed.atomic_write import beside, sync, sync_folder, write_bytes, write_text, writing
from fed.privacy.tensor_files import write_file
from fed.privacy.vault import Vault


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "report.json"


def test_a_text_is_written_in_utf_8_with_its_own_line_ends_and_its_path_comes_back(path):
    assert write_text(path, "α → ω\r\nline\n") == path
    assert path.read_bytes() == "α → ω\r\nline\n".encode()
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


def test_bytes_take_the_place_of_what_was_there(path):
    path.write_text("a longer text from before")
    assert write_bytes(path, b"\x00new") == path
    assert path.read_bytes() == b"\x00new"


def test_until_the_block_ends_a_reader_sees_the_old_file(path):
    path.write_text("old")
    with writing(path) as building:
        building.write_text("half of the new")
        assert path.read_text() == "old"
        building.write_text("the new")
    assert path.read_text() == "the new"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_where_writing_fails_the_old_file_stands_and_nothing_is_left_beside_it(path, error):
    path.write_text("old")
    with pytest.raises(error), writing(path) as building:
        building.write_text("half")
        raise error("the disk is full")
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_rename_that_fails_leaves_nothing_beside_either(path):
    path.mkdir()
    with pytest.raises(OSError):
        write_text(path, "no file takes a folder's place")
    assert list(path.parent.iterdir()) == [path]


def test_a_file_has_its_mode_from_its_first_byte_on_whatever_the_umask(path):
    before = os.umask(0)
    try:
        with writing(path, mode=0o600) as building:
            assert mode_of(building) == 0o600
            building.write_text("private")
    finally:
        os.umask(before)
    assert mode_of(path) == 0o600


def test_without_a_mode_the_umask_decides_as_for_any_new_file(path):
    before = os.umask(0o027)
    try:
        write_text(path, "for the group")
    finally:
        os.umask(before)
    assert mode_of(path) == 0o640


def test_what_is_left_of_a_killed_process_of_the_same_number_is_overwritten(path):
    beside(path).write_text("a longer text that a killed process left")
    write_text(path, "new")
    assert path.read_text() == "new" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_that_syncs_no_folder_is_written_to_all_the_same(tmp_path, monkeypatch, code):
    """As CIFS and some FUSE mounts do; every file of the vault is written, replaced, read and erased there."""
    real = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    vault = Vault(tmp_path / "vault")
    for number in (1.0, 2.0):
        tensors = {"R": torch.full((1, 1, 4), number)}
        vault.write("alice", tensors, base="0" * 16, collective="none", settings="{}")
    assert float(vault.open("alice").tensors["R"][0, 0, 0]) == 2.0
    assert vault.erase("alice") > 0 and not list((tmp_path / "vault").rglob("*.safetensors"))


def test_a_disk_that_fails_is_not_taken_for_a_file_system_without_sync(tmp_path, monkeypatch):
    def fsync(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with (tmp_path / "file").open("wb") as file, pytest.raises(OSError, match="Input/output"):
        sync(file.fileno())
    with pytest.raises(OSError, match="Input/output"):
        sync_folder(tmp_path)


def test_a_folder_that_cannot_be_opened_for_reading_is_not_synced(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refused)
    sync_folder(tmp_path)


def test_an_error_about_another_file_goes_on_as_it_is(path):
    """It is not its own cause: whoever walks from cause to cause comes to an end."""
    with pytest.raises(FileNotFoundError, match="elsewhere") as error, writing(path):
        (path.parent / "elsewhere").read_bytes()
    assert error.value.__cause__ is None and not path.exists()


@pytest.mark.parametrize("write", [write_bytes, write_file])
def test_a_disk_without_room_names_the_file_that_was_to_be_written(path, write, no_room_past):
    path.write_text("old")
    with no_room_past(1000), pytest.raises(OSError, match=re.escape(str(path))):
        write(path, bytes(5000))
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]
