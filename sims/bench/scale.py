"""The cost of runs against their users: measured, in a table, in a plot."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from rich.table import Table
from simulation.app_run import run

PHASES = ("stage1", "stage2", "evaluate")
CONFIG = {
    "stage1-users": 0,
    "stage2-users": 0,
    "layers": "1,2",
    "stage1-rank": 2,
    "stage2-rank": 2,
    "rounds": 1,
    "fraction": 1.0,
    "stage2-epochs": 1,
    "local-epochs": 1,
    "max-items": 2,
    "max-queries": 1,
    "max-new-tokens": 2,
    "max-length": 64,
    "token-budget": 4096,
    "dtype": "float32",
    "device": "cpu",
}


def measure(users: int, base: Path, out: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """One run; seconds by phase, peak memory (PSS of all processes), and seconds outside the app's own clock.

    Raises:
        ValueError: the run failed, or tested another number of users.
    """
    config = CONFIG | {"base-model": str(base), "data": f"synthetic:{users}", "output-dir": str(out)}
    start = time.perf_counter()
    finished = run("lamp7", config, say=say)
    wall = time.perf_counter() - start
    report = json.loads(finished.report.read_text(encoding="utf-8"))
    if len(report["users"]) != users:
        raise ValueError(f"{users} users must be tested, and {len(report['users'])} were")
    seconds = report["seconds"]
    return {
        "users": users,
        "wall_seconds": wall,
        "seconds": seconds | {"around": seconds["total"] - sum(seconds[phase] for phase in PHASES)},
        "user_round_seconds": seconds["total"] / (len(PHASES) * users),
        "peak_bytes": finished.measured_peak(),
        "git": report["git"],
    }


def growth(sizes: Sequence[dict[str, Any]]) -> list[float]:
    """The exponent of users between neighbouring sizes: seconds ∝ users^exponent; above 1 is worse than linear."""
    return [
        math.log(b["seconds"]["total"] / a["seconds"]["total"]) / math.log(b["users"] / a["users"])
        for a, b in zip(sizes, sizes[1:], strict=False)
    ]


def table(sizes: Sequence[dict[str, Any]]) -> Table:
    made = Table(title="Cost against users", title_justify="left")
    for name in ("users", "run, s", "stage 1", "stage 2", "evaluation", "around", "ms a user-round", "peak memory"):
        made.add_column(name, justify="right")
    for size in sizes:
        seconds = size["seconds"]
        made.add_row(
            f"{size['users']:,}",
            f"{seconds['total']:.1f}",
            *(f"{seconds[phase]:.1f}" for phase in (*PHASES, "around")),
            f"{1000 * size['user_round_seconds']:.1f}",
            f"{size['peak_bytes'] / 1e9:.2f} GB",
        )
    return made


def plot(sizes: Sequence[dict[str, Any]], path: Path) -> None:
    """Seconds and memory against users, both axes logarithmic."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    users = [size["users"] for size in sizes]
    figure, (time_axis, memory_axis) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    labels = {"total": "whole run", "stage1": "stage 1", "stage2": "stage 2", "evaluate": "evaluation"}
    for name, label in labels.items():
        seconds = [size["seconds"][name] for size in sizes]
        time_axis.loglog(users, seconds, "o-", label=label, lw=2.2 if name == "total" else 1.2)
    last = sizes[-1]
    linear = [last["seconds"]["total"] * n / last["users"] for n in users]
    time_axis.loglog(users, linear, ":", color="gray", label="proportional to users")
    time_axis.set(xlabel="users", ylabel="seconds", title="Time of a run")
    time_axis.legend(frameon=False)
    memory_axis.loglog(users, [size["peak_bytes"] / 1e9 for size in sizes], "s-", color="tab:red")
    memory_axis.set(xlabel="users", ylabel="GB", title="Peak memory of all processes (PSS)", ylim=(0.5, 20))
    for axis in (time_axis, memory_axis):
        axis.grid(True, which="both", alpha=0.25)
    for ending in (".png", ".svg"):
        figure.savefig(path.with_suffix(ending), dpi=130)
    plt.close(figure)
