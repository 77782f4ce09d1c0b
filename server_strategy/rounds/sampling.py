"""Who is drawn for a round: by (seed, round) alone."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def seeded(seed: int, round_number: int, attempt: int = 0) -> Iterator[None]:
    """Stock strategies sample with Python's global generator: seed it, and put it back.

    Args:
        seed: the run's.
        round_number: from 1 on.
        attempt: 0; 1 where the round is repeated, with users of its own.
    """
    state = random.getstate()
    name = (seed, "sample", round_number, attempt) if attempt else (seed, "sample", round_number)
    digest = hashlib.sha256(repr(name).encode()).digest()
    random.seed(int.from_bytes(digest[:8], "little"))
    try:
        yield
    finally:
        random.setstate(state)
