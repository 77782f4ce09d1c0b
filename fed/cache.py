"""The folder of what is derived from other files, and may be deleted: base models made ready, users' texts as Arrow."""

from __future__ import annotations

import os
from pathlib import Path


def cache_home() -> Path:
    """Where derived files live: $PERFIT_CACHE, else perfit-fed under the user's cache folder.

    Promise: whatever `fed` derives lies there (tests/fed/test_cache.py).
    """
    if "PERFIT_CACHE" in os.environ:
        return Path(os.environ["PERFIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perfit-fed"
