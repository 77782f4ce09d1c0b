"""The cost of runs against their users: measured, in a table, in a plot."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from rich.table import Table
from simulation.app_run import run
from simulation.seats import Seat
from simulation.wall_clock import without_users

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
    "activation-cache": 0,  # every row is passed once a stage, so that kept states would be memory alone
    "dtype": "float32",
    "device": "cpu",
}


def measure(users: int, base: Path, out: Path, say: Callable[[str], None], *, federation: str = "") -> dict[str, Any]:
    """One run; seconds by phase, peak memory (PSS of all processes), and seconds outside the app's own clock.

    Args:
        users: who federate, and as many who personalize and are tested.
        base: the folder of the tiny base.
        out: where the run's folder goes.
        say: hears of its steps.
        federation: Flower's federation config; "" for Flower's own.
    Raises:
        ValueError: the run failed, or tested another number of users.
    """
    config = CONFIG | {"base-model": str(base), "data": f"synthetic:{users}", "output-dir": str(out)}
    start = time.perf_counter()
    seat = Seat(dict(os.environ), federation) if federation else None
    finished = run("lamp7", config, say=say, seat=seat)
    wall = time.perf_counter() - start
    report, tested = without_users(finished.report)
    if tested != users:
        raise ValueError(f"{users} users must be tested, and {tested} were")
    seconds = report["seconds"]
    server = seconds.pop("server", {"seconds": {}, "share": None})
    folder = finished.report.parent
    return {
        "users": users,
        "wall_seconds": wall,
        "seconds": seconds | {"around": seconds["total"] - sum(seconds[phase] for phase in PHASES)},
        "server": server,
        "file_bytes": {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()},
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


def fit(sizes: Sequence[dict[str, Any]], seconds_of: Callable[[dict[str, Any]], float]) -> tuple[float, float] | None:
    """(fixed, per_user) of seconds = fixed + per_user · users, by least squares of the relative errors.

    None where fewer than two sizes say it. Start-up is fixed and users come on top of it, so a power through all sizes
    alone would hide what one more user costs.
    """
    told = [(size["users"], seconds_of(size)) for size in sizes]
    told = [(users, seconds) for users, seconds in told if seconds > 0]
    if len({users for users, _ in told}) < 2:
        return None
    rows = np.array([[1 / seconds, users / seconds] for users, seconds in told])
    fixed, per_user = np.linalg.lstsq(rows, np.ones(len(told)), rcond=None)[0]
    return float(fixed), float(per_user)


def power(sizes: Sequence[dict[str, Any]], seconds_of: Callable[[dict[str, Any]], float]) -> float | None:
    """The exponent of users in what remains above the smallest size's seconds, over all larger sizes; None: too few.

    1 is proportional to users, above it grows faster.
    """
    first = seconds_of(sizes[0]) if sizes else 0.0
    told = [(math.log(size["users"]), math.log(seconds_of(size) - first)) for size in sizes if seconds_of(size) > first]
    if len(told) < 2:
        return None
    users, seconds = np.array(told).T
    return float(np.polyfit(users, seconds, 1)[0])


def of_phase(name: str) -> Callable[[dict[str, Any]], float]:
    """A phase's seconds of a size; "server" is the server's of all phases."""
    if name == "server":
        return lambda size: float(sum(size["server"]["seconds"].values()))
    return lambda size: float(size["seconds"][name])


def grown(sizes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """By phase what is fixed, what one more user costs in ms, and the power that it grows by; None: too few sizes."""
    fits: dict[str, Any] = {}
    for name in ("total", *PHASES, "around", "server"):
        line = fit(sizes, of_phase(name))
        fits[name] = {
            "fixed_seconds": line and line[0],
            "ms_a_user": line and 1000 * line[1],
            "power": power(sizes, of_phase(name)),
        }
    return fits


def table(sizes: Sequence[dict[str, Any]]) -> Table:
    made = Table(title="Cost against users", title_justify="left")
    names = ("users", "by the clock, s", "to the report, s", "stage 1", "stage 2", "evaluation", "around", "server")
    for name in (*names, "ms a user-round", "peak memory"):
        made.add_column(name, justify="right")
    for size in sizes:
        seconds = size["seconds"]
        made.add_row(
            f"{size['users']:,}",
            f"{size['wall_seconds']:.1f}",  # of the command: start-up, the report and shutdown too
            f"{seconds['total']:.1f}",
            *(f"{seconds[phase]:.1f}" for phase in (*PHASES, "around")),
            "–" if size["server"]["share"] is None else f"{size['server']['share']:.0%}",
            f"{1000 * size['user_round_seconds']:.1f}",
            f"{size['peak_bytes'] / 1e9:.2f} GB",
        )
    return made


def fits_table(sizes: Sequence[dict[str, Any]]) -> Table:
    """`grown`, for people."""
    made = Table(title="Seconds = fixed + users times a user's", title_justify="left")
    for name in ("phase", "fixed, s", "ms a user", "power of users, above the smallest size"):
        made.add_column(name, justify="left" if name == "phase" else "right")
    for phase, of in grown(sizes).items():
        numbers = ((of["fixed_seconds"], ".1f"), (of["ms_a_user"], ".2f"), (of["power"], ".2f"))
        made.add_row(phase, *("–" if value is None else format(value, form) for value, form in numbers))
    return made


def plot(sizes: Sequence[dict[str, Any]], path: Path) -> None:
    """Seconds and memory against users, both axes logarithmic."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    users = [size["users"] for size in sizes]
    figure, (time_axis, memory_axis) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    labels = {"total": "whole run", "stage1": "stage 1", "stage2": "stage 2", "evaluate": "evaluation"}
    for name, label in {**labels, "server": "server, of all phases"}.items():
        shown = [(size["users"], seconds) for size in sizes if (seconds := of_phase(name)(size)) > 0]
        if shown:
            time_axis.loglog(*zip(*shown, strict=True), "o-", label=label, lw=2.2 if name == "total" else 1.2)
    if line := fit(sizes, of_phase("total")):
        label = f"{line[0]:.0f} s and {1000 * line[1]:.1f} ms a user"
        time_axis.loglog(users, [line[0] + line[1] * n for n in users], ":", color="gray", label=label)
    time_axis.set(xlabel="users", ylabel="seconds", title="Time of a run")
    time_axis.legend(frameon=False)
    memory_axis.loglog(users, [size["peak_bytes"] / 1e9 for size in sizes], "s-", color="tab:red")
    memory_axis.set(xlabel="users", ylabel="GB", title="Peak memory of all processes (PSS)", ylim=(0.5, 20))
    for axis in (time_axis, memory_axis):
        axis.grid(True, which="both", alpha=0.25)
    for ending in (".png", ".svg"):
        figure.savefig(path.with_suffix(ending), dpi=130)
    plt.close(figure)
