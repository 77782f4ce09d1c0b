"""Python's garbage collector, off while a process that serves one message loads the base model."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """No collections inside; what exists at its end is never looked through. The collector is then as it was.

    For a process that serves one message and ends. Importing torch's and transformers' code makes a million objects,
    none of them garbage, and Python looks through all of them again and again: a seventh of the time from a message to
    its first training step (`python sims/bench_restart.py`). In a process that lives on, garbage could be among what
    was made and would stay: devices alone do this.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_on:
            gc.enable()
