"""When clients were at work, in a simulation; what is left of a run is Flower's, Ray's and the server's own.

A simulated node says with each reply when it began and ended (`timing`); a device sends no such record. Nodes share the
simulation's clock, and those at work at the same time count once.
"""

from __future__ import annotations

import math

from flwr.app import RecordDict

from server_strategy.screening.greeting import timing

RECORD = "timing"


class WorkTime:
    """The spans of time in which clients were at work."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []

    def take(self, content: RecordDict) -> None:
        """Enter a reply's record and remove it from the content; one without it changes nothing. Raises Breach."""
        if RECORD in content:
            self._spans.append(timing(content[RECORD]))
            del content[RECORD]

    @property
    def known(self) -> bool:
        """Whether any client said when it was at work."""
        return bool(self._spans)

    def seconds(self, since: float = 0.0, until: float = math.inf) -> float:
        """Seconds between `since` and `until` (as `time.time`) in which at least one client was at work."""
        total, counted = 0.0, since
        for began, ended in sorted(self._spans):
            total += max(0.0, min(ended, until) - max(began, counted))
            counted = max(counted, ended)
        return total
