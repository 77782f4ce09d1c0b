"""Files written beside and renamed: a reader sees the old file or the whole new one, never half.

No fsync: files that must outlive a loss of power, or be wiped where writing fails, are `fed.privacy.tensor_files`'.
Here is how to ask for it where a file system may have none.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

# What fsync says where a file system has none, for folders (CIFS, some FUSE mounts) or files. A real failure is EIO.
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EROFS}


def sync(descriptor: int) -> None:
    """Down to the disk, where the file system can be asked. Raises OSError where writing fails."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def sync_folder(folder: Path) -> None:
    """Make a folder's entries (a rename, an unlink) survive a power cut, where it can be opened and synced."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # of one that may be written to and not read; Windows opens none
        return
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


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
