"""A SuperLink of ours, watched while a run goes on: all that it started, and whether it or its simulation was lost.

Flower hears of a lost simulation after a minute, and of a lost SuperLink never: its command line starts another one and
asks that. So the processes themselves are watched.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

from simulation.processes import alive, families, offspring

EVERY = 0.5  # seconds between looks
GRACE = 10.0  # seconds that a run's log may go on after its simulation has ended
_SIMULATION = b"flwr-simulation"  # the process of the ServerApp, of the simulated SuperNodes, and of Ray


class Elsewhere:
    """A process that is no child of this one, as far as a `Watch` needs it.

    Args:
        pid, since: it, and its start time, which tells it from a later process of its pid.
    """

    returncode = None  # which only its parent hears

    def __init__(self, pid: int, since: str) -> None:
        self.pid, self._since = pid, since

    def poll(self) -> int | None:
        """None while it runs."""
        return None if alive({self.pid: self._since}) else 1


class Watch(threading.Thread):
    """Looks at a SuperLink's family, and those of what was started beside it, until `finish`.

    Args:
        process: the SuperLink.

    Attributes:
        members: pid -> start time of all processes that have ever been in these families.
        lost: what was lost, in a few words; "" while nothing is.
    """

    def __init__(self, process: subprocess.Popen[bytes] | Elsewhere) -> None:
        super().__init__(daemon=True)
        self._process, self._done = process, threading.Event()
        self._on_lost: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._beside: list[subprocess.Popen[bytes] | Elsewhere] = []
        self._simulations: dict[int, str] = {}
        self.members: dict[int, str] = {}
        self.lost = ""

    @property
    def pid(self) -> int:
        """The SuperLink's."""
        return self._process.pid

    def add(self, beside: subprocess.Popen[bytes] | Elsewhere) -> None:
        """Look at this process's family, too; whether it is lost is for its users to say."""
        self._beside.append(beside)

    @property
    def pids(self) -> list[int]:
        """The SuperLink's, and of what was started beside it."""
        return [self.pid, *(process.pid for process in self._beside)]

    @property
    def simulations(self) -> list[int]:
        """The simulations that run."""
        return alive(dict(self._simulations))

    @property
    def superlink_lives(self) -> bool:
        """Whether there is anybody to ask for a run's status."""
        return self._process.poll() is None

    def when_lost(self, call: Callable[[], None]) -> None:
        """Have this called once something is lost, from the watching thread; at once where it is lost already."""
        with self._lock:
            self._on_lost = call
        if self.lost:
            call()

    def run(self) -> None:
        ended: float | None = None  # since when there is no simulation
        while not self._done.wait(EVERY):
            household = families(self.pids)
            fresh = {pid: started for pid, started in household.items() if pid not in self.members}
            self.members |= household
            self._simulations |= {pid: started for pid, started in fresh.items() if _SIMULATION in _command(pid)}
            if not self.superlink_lives:
                self._lose(f"the SuperLink was lost, it {_ended(self._process.returncode)}")
                return
            if not self._simulations or self.simulations:
                ended = None
                continue
            ended = ended or time.monotonic()
            if time.monotonic() - ended > GRACE and not self.lost:  # or it idles between two runs: look on
                self._lose("the simulation's process was lost, in which the ServerApp runs")

    def _lose(self, what: str) -> None:
        with self._lock:
            self.lost, call = what, self._on_lost
        call()

    def finish(self) -> dict[int, str]:
        """Stop looking; returns all members that were ever seen, orphans of their sessions included."""
        self._done.set()
        if self.is_alive():
            self.join()
        for process in (self._process, *self._beside):
            process.poll()  # one that has ended is a child no longer
        return {**self.members, **families(self.pids), **offspring(*self.pids)}


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _ended(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "ended"
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"
