"""Kills of a run in one process, which is forked for it: SIGKILL at a moment, in a message, in the middle of a write.

The process is this one's copy, with everything imported, so that fifty kills take minutes. A write is cut in the
middle: the file that is being built has half of its bytes when the process ends.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console import leaving
from flwr.app import Message
from simulation.in_process import InProcessGrid, simulated

from fed.settings.settings import Settings
from server_strategy.run import run as run_server

KINDS = ("process", "mid-message", "mid-write")


@dataclass(frozen=True)
class Ended:
    """How the process ended: whether it was killed, failed or completed, its seconds and its last line."""

    killed: bool
    failed: bool
    seconds: float
    line: str


@dataclass(frozen=True)
class Extent:
    """How long an unbroken run is: in seconds, messages and writes."""

    seconds: float
    messages: int
    writes: int


class _CountingGrid(InProcessGrid):
    """Tells of every message before it goes and after it is answered."""

    on_message: Callable[[], None] = staticmethod(lambda: None)

    def deliver(self, message: Message) -> Message:
        self.on_message()
        reply = super().deliver(message)
        self.on_message()
        return reply


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class _Countdown:
    """Calls `end` at the `at`-th step, from 0 on; None: never."""

    def __init__(self, at: int | None, end: Callable[[], None] = _die) -> None:
        self._at, self._end, self.count = at, end, 0

    def step(self) -> None:
        if self.count == self._at:
            self._end()
        self.count += 1


def run(
    settings: Settings, folder: Path, log: Path, *, seconds: float | None = None, message: int | None = None,
    write: int | None = None,
) -> Ended:  # fmt: skip
    """A whole run in a process of its own, which is killed at one of these, or not at all.

    Args:
        settings: the run's.
        folder: where its results go.
        log: takes what it prints.
        seconds: after the process began.
        message: before or after a message; twice as many as there are messages.
        write: in the middle of a file's writing.
    """
    sys.stdout.flush()
    log.touch()  # the process may be killed before it opens it
    began = time.monotonic()
    done = status = 0
    with leaving.held():
        pid = os.fork()
        if not pid:
            _child(settings, folder, log, message, write)
    try:
        while not done and time.monotonic() - began < (seconds if seconds is not None else 3600):
            time.sleep(0.01)
            done, status = os.waitpid(pid, os.WNOHANG)
    finally:  # Ctrl-C, too
        if not done:
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line for line in reversed(lines) if line.strip()), "")
    return Ended(os.WIFSIGNALED(status), bool(status), time.monotonic() - began, last)


def _child(settings: Settings, folder: Path, log: Path, message: int | None, write: int | None) -> None:
    """The forked process: it never returns."""
    code = 1
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # not as the command that it was copied from
        leaving.with_parent()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        # Streams of its own: those of the parent may be a progress bar's, locked when it was copied.
        sys.stdout = sys.stderr = os.fdopen(descriptor, "w", buffering=1)
        messages, writes = _Countdown(message), _Countdown(write)
        sync = os.fsync

        def fsync(fd: Any) -> None:
            def cut() -> None:
                with suppress(OSError):  # a folder is synced too
                    os.ftruncate(fd, os.fstat(fd).st_size // 2)
                _die()

            writes._end = cut
            writes.step()
            sync(fd)

        os.fsync = fsync
        grid = _CountingGrid(simulated(2), settings, int(folder.name))
        grid.on_message = messages.step
        run_server(grid, settings, folder)
        print(f"counted: {messages.count} {writes.count}", flush=True)
        code = 0
    except BaseException as problem:  # whatever ends the run is its last line
        print(f"error: {' '.join(str(problem).split()) or type(problem).__name__}", flush=True)
    finally:
        sys.stdout.flush()
        os._exit(code)


def extent(ended: Ended) -> Extent:
    """How long an unbroken run was, by its last line."""
    _, messages, writes = ended.line.split()
    return Extent(ended.seconds, int(messages), int(writes))
