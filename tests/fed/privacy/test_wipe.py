"""What is wiped is overwritten on disk before it is unlinked, and nothing else is touched."""

import os

import pytest

from fed.privacy.wipe import overwrite, wipe, wipe_folder

SECRET = b"the private numbers" * 100


def blocks_of(path):
    """An open descriptor on the file's blocks, which outlives the unlink and shows what is left in them."""
    return os.open(path, os.O_RDONLY)


def test_a_wiped_file_is_gone_and_its_blocks_no_longer_hold_what_they_held(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(SECRET)
    blocks = blocks_of(path)
    wipe(path)
    assert not path.exists()
    left = os.pread(blocks, len(SECRET) + 1, 0)
    os.close(blocks)
    assert len(left) == len(SECRET) and b"private" not in left and len(set(left)) > 100


def test_overwriting_reaches_every_byte_of_a_file_longer_than_one_chunk(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"\0" * ((1 << 20) + 5000))
    descriptor = os.open(path, os.O_RDWR)
    overwrite(descriptor)
    os.close(descriptor)
    whole = path.read_bytes()
    assert len(whole) == (1 << 20) + 5000
    assert all(any(whole[start : start + 512]) for start in range(0, len(whole), 512))


def test_a_link_is_unlinked_and_what_it_points_at_stays(tmp_path):
    other = tmp_path / "other"
    other.write_bytes(SECRET)
    (tmp_path / "link").symlink_to(other)
    wipe(tmp_path / "link")
    assert other.read_bytes() == SECRET and not (tmp_path / "link").is_symlink()


def test_a_file_that_is_not_there_is_no_error(tmp_path):
    wipe(tmp_path / "never")


def test_a_folder_goes_with_everything_in_it_and_a_link_out_of_it_is_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(SECRET)
    folder = tmp_path / "f"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "x").write_bytes(SECRET)
    (folder / ".y").write_bytes(SECRET)
    (folder / "out").symlink_to(outside)
    blocks = blocks_of(folder / ".y")
    assert wipe_folder(folder) == 3
    assert not folder.exists() and (outside / "kept").read_bytes() == SECRET
    assert b"private" not in os.pread(blocks, len(SECRET), 0)
    os.close(blocks)


def test_a_file_that_cannot_be_overwritten_is_not_silently_unlinked(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(SECRET)

    def fail(*_):
        raise OSError("input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="input/output"):
        wipe(path)
    assert path.exists()
