"""PerFit's figure 1 (b): a task's metric against the share of the base's parameters that a method trains.

A mark is a method's last arm; its area is the seconds that its stages trained, all users together. Methods that train
nothing stand left of the line, for the logarithmic axis has no zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fed.lamp.tasks import get_task
from scores.rows import STAGES
from server_strategy.report.svg import COLOURS, FAINT, GRID, RC, inline_svg
from server_strategy.report.tables import METRICS, Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, Any]
SMALLEST, LARGEST = 30.0, 420.0  # points², of nothing and of the longest training
HEIGHT = 3.6
WIDE, TALL = 0.28, 0.05  # a label, in shares of the axes
TICKS = tuple(digit * 10.0**power for power in range(-6, 2) for digit in (1, 3))


def marks(rows: Sequence[Row]) -> list[Row]:
    """A task's last row of each method in tables 2 and 3, with a value in the task's own metric."""
    last: dict[str, Row] = {}
    for row in sorted((row for row in rows if row["table"] in (2, 3)), key=lambda row: STAGES.index(row["stage"])):
        last[row["method"]] = row
    return [row for row in last.values() if row["scores"][metric_of(row["task"]).key]["mean"] is not None]


def figures(rows: Sequence[Row]) -> list[str]:
    """Inline SVG for the page, one of each task."""
    return [inline_svg(f"tradeoff-{task}", title(task), HEIGHT, paint(own)) for task, own in by_task(rows).items()]


def save(rows: Sequence[Row], path: Path) -> Path | None:
    """All tasks side by side as a PNG; None where there is nothing to draw."""
    tasks = by_task(rows)
    if not tasks:
        return None
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(RC):
        figure = Figure(figsize=(5.2 * len(tasks), HEIGHT + 0.4), layout="constrained")
        FigureCanvasAgg(figure)
        parts = figure.subfigures(1, len(tasks), squeeze=False)[0]
        for part, (task, own) in zip(parts, tasks.items(), strict=True):
            part.suptitle(title(task), x=0.02, ha="left")
            paint(own)(part)
        figure.savefig(path, dpi=130)
    return path


def by_task(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """task -> its marks, where there are two methods at least."""
    tasks = dict.fromkeys(row["task"] for row in rows)
    found = {task: marks([row for row in rows if row["task"] == task]) for task in tasks}
    return {task: own for task, own in found.items() if len(own) > 1}


def title(task: str) -> str:
    metric = metric_of(task)
    return f"{task}: {metric.label} ({'lower' if metric.lower_is_better else 'higher'} is better)"


def paint(rows: Sequence[Row]) -> Callable[[Figure], None]:
    """Draws one task's marks into a figure, each with its method's name beside it.

    Args:
        rows: a task's `marks`.
    """
    metric = metric_of(rows[0]["task"])
    shares = [row["trained_percent_of_base"] for row in rows]
    longest = max(row["training_seconds"]["mean"] for row in rows) or 1.0
    trained = [share for share in shares if share]
    nothing = min(trained, default=1.0) / 6

    low, high = nothing / 1.8, max(trained, default=1.0) * 8
    values = [row["scores"][metric.key]["mean"] for row in rows]
    reach = (max(values) - min(values)) or 1.0
    bottom, top = min(values) - 0.15 * reach, max(values) + 0.15 * reach

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(bottom, top)
        places = []
        for row, share, value in zip(rows, shares, values, strict=True):
            area = SMALLEST + (LARGEST - SMALLEST) * row["training_seconds"]["mean"] / longest
            place = share or nothing
            colour = COLOURS["stage12" if row["method"].startswith("perfit") else "stage1" if share else "base"][0]
            axes.scatter(place, value, s=area, color=colour, alpha=0.55, linewidths=0)
            axes.scatter(place, value, s=6, color=colour)
            places.append((math.log(place / low) / math.log(high / low), (value - bottom) / (top - bottom)))
        for row, (x, y) in zip(rows, apart(places), strict=True):
            axes.text(x + 0.02, y + 0.02, row["method"], transform=axes.transAxes, fontsize=8)
        ticks = [tick for tick in TICKS if low * 2.4 * 1.8 < tick < high]
        if len(trained) < len(shares):
            axes.axvline(nothing * 2.4, color=GRID, linewidth=1)
            ticks = [nothing, *ticks]
        axes.set_xticks(ticks, ["none" if tick == nothing else f"{tick:g} %" for tick in ticks])
        axes.minorticks_off()
        axes.grid(axis="y", color=GRID)
        axes.set_xlabel(f"trained, of the base's parameters; largest mark: {longest:.0f} s of training", color=FAINT)
        axes.set_ylabel(metric.label)

    return draw


def apart(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Where labels stand, in shares of the axes: those that would cover another one move up."""
    labels: dict[int, tuple[float, float]] = {}
    for number in sorted(range(len(places)), key=lambda number: places[number][1]):
        x, y = places[number]
        near = sorted(other_y for other_x, other_y in labels.values() if abs(other_x - x) < WIDE)
        for other in near:
            y = other + TALL if abs(other - y) < TALL else y
        labels[number] = (x, y)
    return [labels[number] for number in range(len(places))]


def metric_of(task: str) -> Metric:
    """The task's metric that its figure shows: the last of a generation task (ROUGE-L), else the first."""
    known = get_task(task)
    key = known.metrics[-1 if known.kind == "generation" else 0]
    return next(metric for metric in METRICS if metric.key == key)
