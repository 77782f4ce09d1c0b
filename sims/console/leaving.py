"""How a command is left early: once, by the same door as at its end, so that nothing it started is left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_prctl: Callable[..., int] | None = getattr(ctypes.CDLL(None), "prctl", None) if sys.platform == "linux" else None
_holders = 0
_kept: int | None = None


def _leave(number: int, _: FrameType | None = None) -> None:
    global _kept
    # `timeout` signals its child and then the whole group, and people press Ctrl-C twice: the second must not cut short
    # the clean-up that the first began, or daemons stay.
    for blocked in _SIGNALS:
        signal.signal(blocked, signal.SIG_IGN)
    if _holders:
        _kept = number
        return
    os.write(2, b"stopping what was started\n")  # print() may be what the signal interrupted
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(143)


def once() -> None:
    """From now on SIGINT raises KeyboardInterrupt and SIGTERM SystemExit(143), the first of them alone."""
    for number in _SIGNALS:
        signal.signal(number, _leave)


def with_parent() -> None:
    """For `Popen(preexec_fn=…)`: the child gets SIGTERM when its parent ends, however it ends; on Linux alone."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def adopt_orphans() -> bool:
    """From now on orphans among this process's descendants are its children; False where the system cannot."""
    return _prctl is not None and _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


@contextmanager
def held() -> Iterator[None]:
    """A signal that comes meanwhile takes effect at the end; the main thread's, for others hear none.

    For `Popen` above all: raised between its fork and its return, an exception leaves a child that nobody knows.
    """
    global _holders, _kept
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _holders += 1
    try:
        yield
    finally:
        _holders -= 1
        if not _holders and _kept is not None:
            number, _kept = _kept, None
            _leave(number)


@contextmanager
def child(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    stdin: int | None = None,
    stderr: int = subprocess.STDOUT,
    orderly: bool = False,
    new_session: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    """A process whose output is read as text; it is waited for, and ended where the body raises, a signal included.

    It ends too where this process is killed (`with_parent`).

    Promise: no child outlives the command (tests/sims/console/test_leaving.py).

    Args:
        command: the program and its arguments.
        orderly: end it by SIGTERM, and give it the time to clean up, not by SIGKILL.
        env: its environment; None: this process's.
        stdin: what it reads; None: what this process reads.
        stderr: where its errors go; into its output.
        new_session: out of reach of a signal to this command's whole group.
    """
    process = None
    try:
        with held():
            process = subprocess.Popen(
                command,
                text=True,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=env,
                start_new_session=new_session,
                preexec_fn=with_parent,
            )
        yield process
        process.wait()
    except BaseException:
        if process is not None:
            process.terminate() if orderly else process.kill()
            process.wait()
        raise
