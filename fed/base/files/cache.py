"""Where files live that are derived from others, and may be deleted."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """Where derived files live: $PERFIT_CACHE, else perfit-fed under the user's cache folder."""
    if "PERFIT_CACHE" in os.environ:
        return Path(os.environ["PERFIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perfit-fed"


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
