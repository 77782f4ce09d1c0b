"""Removing private files so that their content does not stay in the blocks they leave.

A file is overwritten with random bytes, synced, and unlinked. That reaches the same blocks on a plain magnetic or
virtual disk. Flash media remap blocks, and copy-on-write file systems, snapshots and backups keep old ones: there, only
encryption helps, for what survives of a sealed file cannot be read without its key (`fed.privacy.sealed`).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fed.atomic_write import sync, sync_folder

_CHUNK = 1 << 20


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
