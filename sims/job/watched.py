"""A command, and what all its processes take until it ends: seconds, processor seconds, memory."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from console import leaving
from simulation.processes import PeakMemory, family

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Taken:
    """What a command took.

    Attributes:
        seconds: from its start to its end.
        processor_seconds: of it and all its descendants, those that had ended too, to about a second each.
        peak_bytes: the largest proportional set size of all of them at one time.
        said: what it printed.
    """

    seconds: float
    processor_seconds: float
    peak_bytes: int
    said: str


def watched(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Taken:
    """Run a command to its end. Raises ValueError with its last line where it fails."""
    ended = threading.Event()
    ticks: dict[tuple[int, str], int] = {}

    def count(root: int) -> None:
        while not ended.wait(0.5):
            for pid, started in family(root).items():
                with suppress(OSError):
                    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                    ticks[pid, started] = int(fields[11]) + int(fields[12])

    start = time.perf_counter()
    with leaving.child(list(command), env=dict(environment or os.environ), orderly=True, new_session=True) as process:
        memory, counter = PeakMemory(process.pid), threading.Thread(target=count, args=(process.pid,), daemon=True)
        memory.start()
        counter.start()
        said = process.communicate()[0]
    seconds = time.perf_counter() - start
    ended.set()
    counter.join()
    peak = memory.finish()
    if process.returncode:
        last = next((line for line in reversed(said.splitlines()) if line.strip()), "nothing")
        raise ValueError(f"{Path(command[1]).name if len(command) > 1 else command[0]} failed: {last.strip()}")
    return Taken(seconds, sum(ticks.values()) / _TICK, peak, said)


def python(*arguments: str) -> list[str]:
    """The command that runs this Python with these arguments."""
    return [sys.executable, *arguments]
