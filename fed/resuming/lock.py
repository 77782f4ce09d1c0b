"""Which run holds a folder: a vault while a message is served, a run's own folder while the run goes on.

The lock is the system's (`flock`), so it ends with its process, however that ends, and nothing stale is ever found. The
file says whose it is, and goes with the lock. Where the system or the file system has no such locks, nothing is locked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fed.privacy.tensor_files import VaultError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

FILE = ".lock"
PATIENCE = 2.0  # seconds for whoever is just taking or leaving the lock


class HeldError(VaultError):
    """Another run holds the folder.

    Attributes:
        public: the rule without a path or name, for a server's eyes.
    """

    public = "a vault serves one run at a time"


@contextmanager
def holding(folder: Path, run: str, *, alone: bool = False) -> Iterator[None]:
    """The folder is this run's inside; processes of one run hold it together.

    Promise: while one run holds it another is refused, by the name of the first (tests/fed/resuming/test_lock.py).

    Args:
        folder: where there is none, there is nothing to hold.
        run: the run's name.
        alone: refuse other processes of the same run too.
    Raises:
        HeldError: another run holds it.
    """
    descriptor = _take(folder, run, alone) if fcntl is not None and folder.is_dir() else None
    try:
        yield
    finally:
        if descriptor is not None:
            _leave(folder / FILE, descriptor)


def _take(folder: Path, run: str, alone: bool) -> int | None:
    """An open file with the lock on it; None where the file system has no locks, or nothing can be written."""
    path, until, holder = folder / FILE, time.monotonic() + PATIENCE, ""
    while time.monotonic() < until:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            return None
        try:
            if _locked(descriptor, fcntl.LOCK_EX):
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, run.encode(), 0)
                if (alone or _locked(descriptor, fcntl.LOCK_SH)) and _same(path, descriptor):
                    return descriptor
            elif not alone and _locked(descriptor, fcntl.LOCK_SH):
                holder = os.pread(descriptor, 4096, 0).decode(errors="replace")
                if holder == run and _same(path, descriptor):
                    return descriptor
            else:
                holder = os.pread(descriptor, 4096, 0).decode(errors="replace") or holder
        except OSError:  # no locks here
            os.close(descriptor)
            return None
        os.close(descriptor)
        time.sleep(0.02)
    raise HeldError(
        f"{str(folder)!r} must be held by one run at a time, and run {holder or 'of another name'} holds it; "
        "wait until that has ended, or give another folder"
    )


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _same(path: Path, descriptor: int) -> bool:
    """Whether the locked file is still the one at the path: whoever leaves last removes it."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _leave(path: Path, descriptor: int) -> None:
    with suppress(OSError):
        if _locked(descriptor, fcntl.LOCK_EX):  # nobody else holds it
            path.unlink(missing_ok=True)
    os.close(descriptor)
