"""Progress lines from a node while it trains or evaluates, at most one every few seconds."""

from __future__ import annotations

import math
import time
from functools import cache

SECONDS_BETWEEN = 3.0


class Progress:
    """Prints `title: step i/n · loss x · s left`; the simulation's log carries what actors print."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = self._last = time.monotonic()
        self._rows = 0

    def step(self, step: int, steps: int, loss: float) -> None:
        """For training: after each optimizer step; a loss of nan is one that a step has not."""
        self._say(step, steps, f"step {step}/{steps}" + ("" if math.isnan(loss) else f" · loss {loss:.3f}"))

    def rows(self, count: int, total: int) -> None:
        """For evaluation: after `count` more rows."""
        self._rows += count
        self._say(self._rows, total, f"rows {self._rows}/{total}")

    def _say(self, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if done < total and now - self._last < SECONDS_BETWEEN:
            return
        self._last = now
        passed = now - self._start
        left = f"{passed:.0f} s" if done >= total else f"about {passed / done * (total - done):.0f} s left"
        print(f"{self._title}: {text} · {left}", flush=True)


@cache
def say_once(text: str) -> None:
    """A line that a process has printed before, in an earlier round, is not printed again."""
    print(text, flush=True)
