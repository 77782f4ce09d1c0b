"""Who takes part in a round: drawn by (seed, round) alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: int, round_number: int) -> Iterator[None]:
    """Stock strategies sample with Python's global generator: seed it, and put it back."""
    state = random.getstate()
    digest = hashlib.sha256(repr((seed, "sample", round_number)).encode()).digest()
    random.seed(int.from_bytes(digest[:8], "little"))
    try:
        yield
    finally:
        random.setstate(state)
