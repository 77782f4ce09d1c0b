"""How a command is left early: once, by the same door as at its end, so that nothing it started is left behind."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def _leave(number: int, _: FrameType | None) -> None:
    # `timeout` signals its child and then the whole group, and people press Ctrl-C twice: the second must not cut short
    # the clean-up that the first began, or daemons stay.
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    os.write(2, b"stopping what was started\n")  # print() may be what the signal interrupted
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(143)


def once() -> None:
    """From now on SIGINT raises KeyboardInterrupt and SIGTERM SystemExit(143), the first of them alone."""
    for one in _SIGNALS:
        signal.signal(one, _leave)
