"""Files written beside and renamed: a reader sees the old file or the whole new one, never half.

`writing` syncs nothing: files that must outlive a loss of power, or be wiped where writing fails, are
`fed.privacy.tensor_files`'. Here is how to ask for it where a file system may have none, and for many files at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

# What fsync says where a file system has none, for folders (CIFS, some FUSE mounts) or files. A real failure is EIO.
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EROFS}

TOGETHER = 8  # files


def sync(descriptor: int) -> None:
    """Down to the disk, where the file system can be asked. Raises OSError where writing fails."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Make a folder's entries (a rename, an unlink) survive a power cut, where it can be opened and synced."""
    for problem in sync_folders([folder]).values():
        raise problem


def sync_folders(folders: Sequence[Path]) -> dict[Path, OSError]:
    """The same of many, together; returns why some cannot be synced."""
    opened: dict[int, Path] = {}
    problems: dict[Path, OSError] = {}
    try:
        for folder in folders:
            try:
                opened[os.open(folder, os.O_RDONLY)] = folder
            except PermissionError:  # of one that may be written to and not read; Windows opens none
                continue
            except OSError as problem:
                problems[folder] = problem
        return problems | {opened[descriptor]: problem for descriptor, problem in sync_together(list(opened)).items()}
    finally:
        for descriptor in opened:
            os.close(descriptor)


def sync_together(descriptors: Sequence[int]) -> dict[int, OSError]:
    """Many files down to the disk; returns why some are not.

    From `TOGETHER` files on by one call a file system where Linux has it, which waits for everything on it: each call
    waits for the disk, some milliseconds, and a call a file adds up.
    """
    if len(descriptors) >= TOGETHER and (sync_file_system := _syncfs()) is not None:
        with suppress(OSError):  # which file it is about, each says for itself
            for descriptor in {os.fstat(descriptor).st_dev: descriptor for descriptor in descriptors}.values():
                sync_file_system(descriptor)
            return {}
    problems = {}
    for descriptor in descriptors:
        try:
            sync(descriptor)
        except OSError as problem:
            problems[descriptor] = problem
    return problems


@lru_cache(maxsize=1)
def _syncfs() -> Callable[[int], None] | None:
    """syncfs(2), which says what failed from Linux 5.8 on; None elsewhere."""
    kernel = re.match(r"(\d+)\.(\d+)", platform.release())
    if platform.system() != "Linux" or kernel is None or (int(kernel[1]), int(kernel[2])) < (5, 8):
        return None
    call = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if call is None:
        return None

    def sync_file_system(descriptor: int) -> None:
        if call(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    return sync_file_system


def beside(path: Path) -> Path:
    """Where this process builds the file: in the same folder, hidden, so that a rename puts it in place."""
    return path.with_name(f".{path.name}.{os.getpid()}")


@contextmanager
def writing(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Yields an empty file to fill, which takes the place of `path` where the block ends well and goes where it fails.

    An OSError names `path`, that of a full disk too.

    Promise: at `path` stands the old file or the new one, whole, and nothing is left beside it
    (tests/fed/test_atomic_write.py).

    Args:
        path: the file to write; its folder must exist.
        mode: who may read and write it, before the umask; the file has it from its first byte on.
    """
    building = beside(path)
    os.close(os.open(building, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode))
    try:
        yield building
        os.replace(building, path)
    except BaseException as problem:
        building.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            raise_naming(problem, path, building)
        raise


def raise_naming(problem: OSError, path: Path, building: Path) -> NoReturn:
    """Raise an error as one about the file that was to be written: a full disk names none, or the one built beside it.

    Args:
        problem: what the system said.
        path: the file to write.
        building: where it was built.
    """
    if problem.errno is None or problem.filename not in (None, str(building)):
        raise problem
    raise OSError(problem.errno, problem.strerror, str(path)) from problem


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> Path:
    """Write a file of these bytes; returns its path."""
    with writing(path, mode=mode) as building:
        building.write_bytes(data)
    return path


def write_text(path: Path, text: str, *, mode: int = 0o666) -> Path:
    """Write a file of this text in UTF-8, line ends as they are; returns its path."""
    return write_bytes(path, text.encode(), mode=mode)
