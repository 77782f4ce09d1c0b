"""Time engines in turn in one process, so that a machine that slows down for a while slows all of them."""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Engine = Callable[[], tuple[int, list[list[float]] | None]]  # does its work; returns (tokens, step losses)


class PeakMemory:
    """The most memory of a GPU, or of this process's resident set, above what it was at the start; bytes."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = device

    def __enter__(self) -> PeakMemory:
        if self._device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats(self._device)
            self._start = torch.cuda.memory_allocated(self._device)
            return self
        self._stop = threading.Event()
        self._start = self._resident()
        self.peak = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.peak = max(self.peak, self._resident() - self._start)

    def __exit__(self, *_: object) -> None:
        if self._device.startswith("cuda"):
            self.peak = torch.cuda.max_memory_allocated(self._device) - self._start
            return
        self._stop.set()
        self._thread.join()

    @staticmethod
    def _resident() -> int:
        try:
            return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            return 0


@dataclass
class Timed:
    """One engine's runs of one case: seconds a run, tokens it processed in one, peak bytes, and its step losses."""

    seconds: list[float]
    tokens: int
    peak: int = 0
    losses: list[list[float]] | None = None  # of the timed users

    @property
    def rates(self) -> list[float]:
        return [self.tokens / s for s in self.seconds]

    def as_json(self) -> dict[str, Any]:
        return {
            "tokens_per_second": statistics.median(self.rates),
            "tokens_per_second_min": min(self.rates),
            "tokens_per_second_max": max(self.rates),
            "peak_bytes": self.peak,
        }


def now(device: str = "cpu") -> float:
    """The time in seconds, when a GPU has done all that it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def in_turn(
    engines: Mapping[str, Engine], repeats: int, tick: Callable[[str], None], device: str = "cpu"
) -> dict[str, Timed]:
    """Run the engines in turn, `repeats` times after one that does not count; each returns (tokens, losses)."""
    timings: dict[str, Timed] = {}
    for repeat in range(repeats + 1):
        for name, run in engines.items():
            tick(name)
            with PeakMemory(device) as memory:
                start = now(device)
                tokens, losses = run()
                seconds = now(device) - start
            timed = timings.setdefault(name, Timed([], tokens))
            if repeat:
                timed.seconds.append(seconds)
            timed.peak, timed.losses = max(timed.peak, memory.peak), losses
    return timings


def ratio(first: Timed, second: Timed) -> float:
    """How many times the tokens/s of `second` does `first` reach: the median of the repeats' ratios."""
    return statistics.median(a / b for a, b in zip(first.rates, second.rates, strict=True))
