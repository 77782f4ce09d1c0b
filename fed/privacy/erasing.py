"""Which files a vault makes, found by walking its folders: no header is read for it, and no link is followed.

    <vault>/collective-*.safetensors, versions-*.vault, journal.json, journal.lock
    <vault>/<name>-<10 hex digits>/personal.*, answers/*                                one folder a user

Half-written ones begin with a dot. Whatever else lies there is somebody else's and stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from fed.privacy.wipe import wipe, wipe_folder

_OF_ALL = ("collective-*.safetensors", "versions-*.vault", "journal.json", "journal.lock")
_USERS_FOLDER = re.compile(r".*-[0-9a-f]{10}")


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
