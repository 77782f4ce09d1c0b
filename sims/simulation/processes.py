"""Families of processes: who belongs to whom, how all of them are ended, and what memory they take together."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path


def stat(pid: int) -> tuple[int, str, str] | None:
    """(parent, state, start time) of a process, None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[0], fields[19]


def family(root: int) -> dict[int, str]:
    """A process and all its descendants: pid -> start time, which tells a process from a later one of its pid."""
    children: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := stat(int(entry.name))):
            children.setdefault(fields[0], []).append(int(entry.name))
            started[int(entry.name)] = fields[2]
    members: dict[int, str] = {}
    todo = [root]
    while todo:
        pid = todo.pop()
        if pid in started:
            members[pid] = started[pid]
            todo += children.get(pid, [])
    return members


def alive(members: dict[int, str]) -> list[int]:
    """Those of a family that still run, zombies and later processes of the same pids left out."""
    return [pid for pid, start in members.items() if (s := stat(pid)) and s[1] != "Z" and s[2] == start]


def end(members: dict[int, str]) -> None:
    """End what is left of a family: SIGTERM, and SIGKILL after ten seconds."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0)):
        left = alive(members)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any((s := stat(pid)) and s[1] != "Z" for pid in left):
            time.sleep(0.1)


class PeakMemory(threading.Thread):
    """The largest proportional set size (PSS: shared pages count once) of a process and all its descendants."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root, self._stop_now = root, threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._stop_now.wait(4.0):
            self.peak = max(self.peak, sum(self._pss(pid) for pid in family(self._root)))

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


def offspring(leader: int) -> dict[int, str]:
    """pid -> start time of a process, its descendants, and the orphans of its session."""
    members = family(leader)
    for entry in Path("/proc").iterdir():
        with suppress(OSError, IndexError):
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
            if fields and int(fields[3]) == leader:
                members[int(entry.name)] = fields[19]
    return members
