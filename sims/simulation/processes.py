"""Families of processes: who belongs to whom, how all of them are ended, and what memory they take together."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def stat(pid: int) -> tuple[int, str, str] | None:
    """(parent, state, start time) of a process, None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[0], fields[19]


def families(roots: Iterable[int]) -> dict[int, str]:
    """Processes and all their descendants: pid -> start time, which tells a process from a later one of its pid."""
    children: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (fields := stat(int(entry))):
            children.setdefault(fields[0], []).append(int(entry))
            started[int(entry)] = fields[2]
    members: dict[int, str] = {}
    todo = list(roots)
    while todo:
        pid = todo.pop()
        if pid in started:
            members[pid] = started[pid]
            todo += children.get(pid, [])
    return members


def family(root: int) -> dict[int, str]:
    """A process and all its descendants, as `families`."""
    return families([root])


def alive(members: dict[int, str]) -> list[int]:
    """Those of a family that still run, zombies and later processes of the same pids left out."""
    return [pid for pid, start in members.items() if (s := stat(pid)) and s[1] != "Z" and s[2] == start]


def end(members: dict[int, str], patience: float = 10.0) -> None:
    """End what is left of a family: SIGTERM, and SIGKILL after `patience` seconds; without patience, at once."""
    signals = [(signal.SIGTERM, patience)] if patience else []
    for number, seconds in (*signals, (signal.SIGKILL, 2.0)):
        left = alive(members)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any((s := stat(pid)) and s[1] != "Z" for pid in left):
            time.sleep(0.02)


class PeakMemory(threading.Thread):
    """The largest proportional set size (PSS: shared pages count once) of processes and all their descendants."""

    def __init__(self, *roots: int) -> None:
        super().__init__(daemon=True)
        self._roots, self._stop_now = roots, threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._stop_now.wait(4.0):
            self.peak = max(self.peak, sum(self._pss(pid) for pid in families(self._roots)))

    def finish(self) -> int:
        self._stop_now.set()
        self.join()
        return self.peak

    @staticmethod
    def _pss(pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            return 0


def offspring(*leaders: int) -> dict[int, str]:
    """pid -> start time of processes, their descendants, and the orphans of their sessions."""
    members = families(leaders)
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
            if fields and int(fields[3]) in leaders:
                members[int(entry.name)] = fields[19]
    return members
