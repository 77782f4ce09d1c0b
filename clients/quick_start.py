"""Imports and weights without the garbage collector, for a process that serves one message and ends.

Importing torch's and transformers' code makes a million objects, none of them garbage, and Python looks through all of
them again and again: a seventh of the time from a message to its first training step (`python sims/bench_restart.py`).
What was made meanwhile is put out of the collector's sight, so that it is not looked through afterwards either. In a
process that lives on, garbage could be among it and would stay: devices alone do this.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """No collections inside; what exists at its end is never looked through. The collector is then as it was."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
