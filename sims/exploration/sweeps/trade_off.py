"""`explore.py trade-off`: quality against percent of parameters, marker size by training seconds. Figures 1b and 9.

All methods of a task get the same users, rows and steps (`sims/grid.toml`), each its rates of `compare_methods.py`.
"""

from __future__ import annotations

import argparse
from typing import Any

from cells.plan import cells as plan_cells
from console.command import Parser, device_of
from rich.console import Console
from simulation.apps import parsed

from exploration.figures import MARKERS, SERIES, Drawing, Table, grid, legend, logarithmic, number
from exploration.options import caption, facts
from exploration.sweeps import runs
from fed.lamp.tasks import get_task

SUMMARY = "metric against percent of parameters, over methods and tasks (Figures 1b and 9)"
TASKS = "LaMP_2N,LaMP_4,LaMP_5,LaMP_7"
DEFAULT_METHODS = "perfit,perfit-stage1,reft-p,oppu,lora-c,lora-p"


def add_options(p: Parser) -> None:
    runs.add_options(p)
    p.add_argument("--tasks", default=TASKS, metavar="T,…", help="default: %(default)s")
    p.add_argument("--methods", default=DEFAULT_METHODS, metavar="M,…", help="default: %(default)s")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    if options.layer != -1:
        raise ValueError(f"--layer is each app's own here; leave it out, got {options.layer}")
    tasks, methods = ([word.strip() for word in text.split(",")] for text in (options.tasks, options.methods))
    options.tasks = ",".join(get_task(task).name for task in tasks)
    cap = {"stage1-users": options.users, "stage2-users": options.users} if options.users else {}
    changes = {"base-model": options.base_model, **cap, **device_of(options), **parsed(options.run_config)}
    cells = plan_cells(
        {task: [options.seed] for task in tasks},
        methods,
        data=None,
        preset_name="small",
        changes={**changes, "data": runs.source_of(options.data)},
    )
    found = runs.outcomes(options, cells, console)
    points = []
    for cell, outcome in zip(cells, found, strict=True):
        arm = "stage1+2" if "stage1+2" in outcome["arms"] else "stage1"
        points.append(
            {"task": cell.task, "method": cell.label, "arm": arm, "metric": runs.main_metric(cell.task), **outcome}
        )
    return {"of": facts(options, runs.shapes_of(options), len(found[0]["users"])), "points": points}


def words(result: dict[str, Any]) -> list[str]:
    said = []
    for task in dict.fromkeys(point["task"] for point in result["points"]):
        best = min(_of(result, task), key=lambda p: p["arms"][p["arm"]]["loss_per_token"])
        said.append(
            f"{task}: the lowest loss per token is {best['method']}'s, "
            f"{number(best['arms'][best['arm']]['loss_per_token'], 3)}, with {best['percent']:.3g} % of parameters"
        )
    return said


def _of(result: dict[str, Any], task: str) -> list[dict[str, Any]]:
    return [point for point in result["points"] if point["task"] == task]


def tables(result: dict[str, Any]) -> list[Table]:
    rows = [
        [
            f"{point['task']} {point['method']}",
            number(point["arms"][point["arm"]]["loss_per_token"], 3),
            f"{number(point['arms'][point['arm']].get(point['metric']), 3)} {point['metric']}",
            f"{point['percent']:.4f}",
            number(point["training_seconds"], 1),
        ]
        for point in result["points"]
    ]
    head = ("task, method", "loss per token", "metric", "% of parameters", "training, s")
    return [Table("Quality and cost", head, rows)]


def drawings(result: dict[str, Any]) -> list[Drawing]:
    tasks = list(dict.fromkeys(point["task"] for point in result["points"]))
    methods = list(dict.fromkeys(point["method"] for point in result["points"]))
    looks = {m: (SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)]) for i, m in enumerate(methods)}
    longest = max(point["training_seconds"] for point in result["points"]) or 1.0

    def paint(figure: Any) -> None:
        panels = figure.subplots(len(tasks), 1, squeeze=False, sharex=True)[:, 0]
        for axes, task in zip(panels, tasks, strict=True):
            for point in (p for p in _of(result, task) if p["percent"]):
                colour, marker = looks[point["method"]]
                value = point["arms"][point["arm"]][point["metric"]]
                size = 20 + 160 * point["training_seconds"] / longest
                axes.scatter(
                    point["percent"], value, s=size, color=colour, marker=marker, alpha=0.8, label=point["method"]
                )
            logarithmic(axes)
            axes.set_title(task, fontsize=9, loc="left")
            axes.set_ylabel(runs.metric_label(_of(result, task)[0]["metric"]).replace(" (", "\n("), fontsize=8)
            grid(axes)
        panels[-1].set_xlabel(f"% of parameters; area: training, largest {longest:.0f} s")
        legend(figure, 3)

    height = 1.2 + 1.9 * len(tasks)
    return [Drawing("trade-off", f"Quality against parameters\n{caption(result['of'])}", height, paint)]
