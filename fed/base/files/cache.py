"""Files that are derived from others: what tells the others apart, and one process at a time that makes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


def sample(file: Path, pieces: int = 64, size: int = 4096) -> bytes:
    """The file's length, and `pieces` stretches of it, first and last among them; all of a small file."""
    length = file.stat().st_size
    with file.open("rb") as opened:
        if length <= pieces * size:
            return str(length).encode() + opened.read()
        stretches = [str(length).encode()]
        for i in range(pieces):
            opened.seek(i * (length - size) // (pieces - 1))
            stretches.append(opened.read(size))
    return b"".join(stretches)


@contextmanager
def making(folder: Path) -> Iterator[None]:
    """Inside, no other process makes something in this folder of the cache, nor on another host that shares its disk.

    Whoever comes second waits, and then finds what the first has made. The lock is the system's, so it ends with its
    process; where the file system has no such locks all make the same at a time. Raises OSError where nothing can be
    written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("a") as file:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
