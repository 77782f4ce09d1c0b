"""Kills of a run of `sims/run.py` on Flower and Ray: SIGKILL to one of its processes, or to all of them at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from console import leaving
from simulation.apps import SIMS, Config, words
from simulation.processes import alive, end, family
from simulation.superlink import homes

# What is killed, and how its command line begins or what it has.
KINDS = {
    "actor": b"ray::ClientAppActor",
    "simulation": b"flwr-simulation",
    "superlink": b"flower-superlink",
    "command": b"run.py",
    "group": b"",
}
SURVIVES = ("actor",)  # the run goes on by itself
WITHIN = 30.0  # seconds in which a command whose run is lost ends, and all that it started
_BEGUN = re.compile(r"^(\w+: \S+ on |stage|resumed)")  # the greeting: who takes part, on which base


@dataclass(frozen=True)
class Ended:
    """How the command ended.

    Attributes:
        code: its exit code.
        seconds: from the kill, or the greeting where there was none, to its end and that of all its processes.
        line: its last line.
        left: processes and folders that it left behind, in words.
        hit: whether there was a process to kill.
        report: the path of its report; None where there is none.
        marks: seconds from the greeting to each line from it on, and to the command's end.
    """

    code: int
    seconds: float
    line: str
    left: str
    hit: bool
    report: Path | None
    marks: tuple[float, ...] = ()


def run(app: str, config: Config, *, kind: str | None = None, lines: int = 0, after: float = 0.0) -> Ended:
    """A run of the app, one of whose processes is killed.

    Args:
        app: a folder of `sims/`.
        config: changes to its settings.
        kind: of `KINDS`; None: nothing is killed.
        lines: how many lines after the run's greeting the kill waits for, so that a slow machine's is not too early.
        after: seconds from then to the kill.
    """
    command = [sys.executable, str(SIMS / "run.py"), str(SIMS / app), "-c", words(config)]
    with leaving.held():
        process = subprocess.Popen(
            command,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=leaving.with_parent,
        )
    said: list[str] = []
    marks: list[float] = []
    began = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                said.append(line.strip())
            if marks or _BEGUN.match(line):
                marks.append(time.monotonic())
                began.set()
        began.set()

    listener = threading.Thread(target=listen, daemon=True)
    members: dict[int, str] = {}
    try:
        # Until the run has greeted its nodes; then, where something is killed, so many lines and seconds more.
        listener.start()
        hit = False
        while process.poll() is None and not began.wait(0.2):
            members |= family(process.pid)
        since = time.monotonic()
        if kind is not None:
            while process.poll() is None and len(marks) <= lines:
                members |= family(process.pid)
                time.sleep(0.1)
            moment = time.monotonic() + after
            while process.poll() is None and time.monotonic() < moment:
                members |= family(process.pid)
                time.sleep(0.1)
            since, hit = time.monotonic(), _kill(kind, process.pid, members)
        # Its end, and what is left of its processes after it.
        patience = WITHIN if hit and kind not in SURVIVES else 1200.0
        while process.poll() is None and time.monotonic() - since < patience:
            members |= family(process.pid)
            time.sleep(0.2)
        ended = time.monotonic()
        while alive(members) and time.monotonic() - since < (WITHIN if hit else 20.0):
            time.sleep(0.2)
        seconds = time.monotonic() - since
        killed = (process.poll() or 0) < 0
        left = _left(process.pid, members, killed=killed)
    finally:  # Ctrl-C, too
        end({**members, **family(process.pid)})
    process.wait()
    listener.join(5)
    last = said[-1] if said else ""
    report = Path(last) if last.endswith("report.json") and Path(last).is_file() else None
    since_greeting = tuple(mark - marks[0] for mark in (*marks, ended)) if marks else ()
    return Ended(process.returncode, seconds, last, left, hit, report, since_greeting)


def _kill(kind: str, root: int, members: dict[int, str]) -> bool:
    """SIGKILL to the processes of this kind; whether there was one."""
    members |= family(root)
    hits = [pid for pid in alive(members) if kind == "group" or _is(kind, pid)]
    for pid in hits:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(hits)


def _is(kind: str, pid: int) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return KINDS[kind] in words


def _named(pid: int) -> str:
    """What a process is called, the first words of its command line."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "gone since"
    return " ".join(Path(word).name for word in words[:3])[:80]


def _left(pid: int, members: dict[int, str], *, killed: bool) -> str:
    """What a command left behind; the home of one that was killed itself goes when the next one starts."""
    processes = alive(members)
    words = [f"{len(processes)} processes ({', '.join(map(_named, processes))})"] if processes else []
    words += ["a folder"] if pid in homes().values() and not killed else []
    return ", ".join(words)
