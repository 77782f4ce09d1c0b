"""Removing private files so that their content does not stay in the blocks they leave.

A file is overwritten with random bytes, synced, and unlinked. That reaches the same blocks on a plain magnetic or
virtual disk. Flash media remap blocks, and copy-on-write file systems, snapshots and backups keep old ones: there, only
encryption helps, for what survives of a sealed file cannot be read without its key (`fed.privacy.sealed`).

Which files a vault makes is found by walking its folders: no header is read for it, and no link is followed.

    <vault>/collective-*.safetensors, versions-*.vault, journal.json, journal.lock
    <vault>/<name>-<10 hex digits>/personal.*, answers/*                                one folder a user

Half-written ones begin with a dot. Whatever else lies there is somebody else's and stays.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from fed.atomic_write import sync, sync_folder

_CHUNK = 1 << 20
_OF_ALL = ("collective-*.safetensors", "versions-*.vault", "journal.json", "journal.lock")
_USERS_FOLDER = re.compile(r".*-[0-9a-f]{10}")


def overwrite(descriptor: int) -> None:
    """Random bytes over all of an open file, down to the disk; its length stays."""
    left = os.fstat(descriptor).st_size
    os.lseek(descriptor, 0, os.SEEK_SET)
    while left:
        left -= os.write(descriptor, os.urandom(min(left, _CHUNK)))
    sync(descriptor)


def wipe(path: Path) -> None:
    """Overwrite and unlink one file; a link is only unlinked. Nothing happens where there is none. Raises OSError."""
    try:
        plain = stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if plain:
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            overwrite(descriptor)
        finally:
            os.close(descriptor)
    os.unlink(path)
    sync_folder(path.parent)


def wipe_folder(folder: Path) -> int:
    """Wipe every file in a folder and remove it; returns how many there were. A link is unlinked. Raises OSError."""
    if folder.is_symlink():
        wipe(folder)
        return 1
    count = 0
    for path in sorted(folder.rglob("*"), reverse=True):  # what is in a folder before the folder
        if path.is_dir() and not path.is_symlink():
            os.rmdir(path)
        else:
            wipe(path)
            count += 1
    os.rmdir(folder)
    sync_folder(folder.parent)
    return count


def user_folders(root: Path) -> list[Path]:
    """The folders of users, by name; a link that stands for one is none."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if _USERS_FOLDER.fullmatch(p.name) and p.is_dir() and not p.is_symlink())


def erase_everything(root: Path) -> int:
    """Overwrite and remove all that the vault made, and nothing else. Returns how many files. Raises OSError."""
    count = 0
    for folder in user_folders(root):
        if (folder / "answers").is_dir() or (folder / "answers").is_symlink():
            count += wipe_folder(folder / "answers")
        for path in _made(folder, ("personal.*",)):
            wipe(path)
            count += 1
        with suppress(OSError):  # a folder that somebody keeps other files in
            folder.rmdir()
    for path in _made(root, _OF_ALL):
        wipe(path)
        count += 1
    return count


def _made(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    """The files, whole and half-written, that are named so; links among them, which are unlinked alone."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        named = any(fnmatchcase(path.name, one) or fnmatchcase(path.name, f".{one}*") for one in patterns)
        if named and (path.is_symlink() or not path.is_dir()):
            yield path
