"""Threads of a process that computes: as many as it has CPUs, and none that spins for long while it waits.

OpenMP's threads wait for each other by spinning. Beside a busy process that takes the time of the very thread that is
waited for: two threads on two cores fell from 240 to 22 tokens/s. And a container with a share of the CPUs shows all of
its host's, so that its threads queue for the few it may use. Both are read from the environment when torch is loaded,
so `fed` sets them first; what the user has set stays.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path

# Rounds of a loop before a waiting thread sleeps (GNU's OpenMP), and milliseconds (LLVM's and Intel's).
SPIN = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
THREADS = "OMP_NUM_THREADS"


def bound(environment: MutableMapping[str, str] = os.environ) -> None:
    """Bound the spinning and the number of threads of whatever loads torch with this environment.

    Promise: every entry point of the product does so before torch is loaded (tests/fed/test_threads.py).
    """
    for name, value in SPIN.items():
        environment.setdefault(name, value)
    if THREADS not in environment and (cpus := available()) < (os.cpu_count() or 1):
        environment[THREADS] = str(cpus)


def available() -> int:
    """CPUs that this process may use at one time, at least 1: its affinity, and its control group's share."""
    visible = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(visible, quota())))


def quota(root: Path = Path("/sys/fs/cgroup"), groups: Path = Path("/proc/self/cgroup")) -> float:
    """CPUs' time that the control group and those above it may use, in CPUs; infinite where nothing bounds it.

    Args:
        root: where control groups are mounted, of version 2 or 1.
        groups: the process's own, a line `number:controllers:path` for each hierarchy.
    """
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return math.inf
    shares = [math.inf]
    for _, controllers, path in (line for line in lines if len(line) == 3):
        if not controllers:
            shares += [_share(*_words(folder / "cpu.max")) for folder in _upwards(root, path)]
        elif "cpu" in controllers.split(","):
            for folder in _upwards(root / "cpu", path):
                quota, period = folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"
                shares.append(_share(*_words(quota), *_words(period)))
    return min(shares)


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it; in a container the path may be the host's, and only the mount is there."""
    folder = mount / path.lstrip("/")
    yield folder
    while folder != mount:
        folder = folder.parent
        yield folder


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []


def _share(time: str = "max", period: str = "100000", *_: str) -> float:
    try:
        share = int(time) / int(period)
    except (ValueError, ZeroDivisionError):
        return math.inf  # "max"
    return share if share > 0 else math.inf
