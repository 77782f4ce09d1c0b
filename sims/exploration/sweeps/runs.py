"""One cell of a sweep: a run of the app as `compare_methods.py` has it, and what its report says of quality and cost.

The settings are the small preset's of `sims/grid.toml`, then -c's, then what is swept. `--users` caps both cohorts.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells.cell import Cell
from cells.plan import preset
from cells.run_cells import run_cells
from console.command import Parser, at_least_one, device_of
from rich.console import Console
from simulation.apps import parsed

from exploration.options import check, folder
from fed.base.skeleton import Skeleton, skeleton
from fed.lamp import metrics
from fed.lamp.tasks import Task, get_task
from fed.statistics import paired_t
from server_strategy.report.tables import METRICS

Outcome = dict[str, Any]
ARMS = ("base", "stage1", "stage1+2", "swapped")
_LOWER = {metric.key for metric in METRICS if metric.lower_is_better}


def add_options(p: Parser) -> None:
    p.add_run_config("settings of every run")
    p.add_runtime()


def cell_of(
    options: argparse.Namespace, task: str, label: str, swept: Mapping[str, Any], *, seed: int | None = None
) -> Cell:
    """One run of PerFit with these settings over all others; seed: another than the options'."""
    cap = {"stage1-users": options.users, "stage2-users": options.users} if options.users else {}
    config = {
        **preset("small", task),
        "method": "perfit",
        "base-model": options.base_model,
        **cap,
        **device_of(options),
        **parsed(options.run_config),
        "data": source_of(options.data),
        "seed": options.seed if seed is None else seed,
        **swept,
    }
    return Cell(task, label, config["seed"], config)


def source_of(data: str) -> str:
    """The data as a cell takes it: a folder by its absolute path."""
    return data if data.startswith("synthetic") else str(Path(data).expanduser().resolve())


def outcomes(options: argparse.Namespace, cells: Sequence[Cell], console: Console) -> list[Outcome]:
    """What became of each cell, in order; one that finished before is not run again. Raises ValueError for a loss."""
    check(options)
    at_least_one(options, "jobs")
    reports, lost = run_cells(
        cells, folder(options) / "cells", console, jobs=options.jobs, runtime=options.runtime, share_stage1=False
    )
    for cell, why in lost.items():
        raise ValueError(f"{cell.task} {cell.label} failed: {why}")
    return [outcome(reports[cell], get_task(cell.task)) for cell in cells]


def outcome(report: Mapping[str, Any], task: Task) -> Outcome:
    """A report's scores by arm, each user's loss per token and main metric by arm, parameters and seconds."""
    parameters = report["parameters"]
    trained = parameters["stage1"] + parameters["stage2"]
    seconds = report["seconds"]
    return {
        "arms": {arm: scores for arm in ARMS if (scores := report["arms"].get(arm)) is not None},
        "users": {
            user["user_id"]: {arm: sums["nll"] / sums["tokens"] for arm, sums in user["sums"].items()}
            for user in report["users"]
            if user["sums"]
        },
        "user_scores": {
            user["user_id"]: {
                arm: metrics.scores(task, sums)[main_metric(task.name)]
                for arm, sums in user["sums"].items()
                if sums.get("count")
            }
            for user in report["users"]
            if user["sums"]
        },
        "parameters": trained,
        "percent": 100 * trained / parameters["base"],
        "training_seconds": sum(seconds.get(stage) or 0.0 for stage in ("stage1", "stage2")),
    }


def shapes_of(options: argparse.Namespace) -> Skeleton:
    """The base's shapes, without its weights."""
    task = get_task(options.task).name
    return skeleton(cell_of(options, task, "perfit", {}).settings().base_source)


def symmetric(count: int, blocks: int) -> tuple[int, ...]:
    """So many of the blocks, evenly spaced, symmetric about the middle. Raises ValueError for more than there are."""
    if not 1 <= count <= blocks:
        raise ValueError(f"{blocks} blocks have 1 to {blocks} to edit, got {count}")
    lower = [int((i + 0.5) * blocks / count) for i in range(count // 2)]
    middle = [blocks // 2] if count % 2 else []
    return tuple([*lower, *middle, *(blocks - 1 - block for block in reversed(lower))])


def main_metric(task: str) -> str:
    """The metric that a sweep draws besides the loss: accuracy, MAE, ROUGE-L."""
    kind = get_task(task)
    return kind.metrics[-1] if kind.kind == "generation" else kind.metrics[0]


def metric_label(key: str) -> str:
    name = next((metric.label for metric in METRICS if metric.key == key), key)
    return f"{name} ({'lower' if key in _LOWER else 'higher'} is better)"


def paired(
    first: Sequence[Outcome], second: Sequence[Outcome], arm: str = "stage1+2", *, second_arm: str = ""
) -> dict[str, Any]:
    """Mean over users of the loss per token under `first` minus that under `second`, its t interval and p.

    A user's loss is the mean over the outcomes of a side; users that all of them have are compared.

    Args:
        arm: of both sides.
        second_arm: of the second, where it is another.
    """
    arms = (arm, second_arm or arm)
    scored = [
        {user for user, of_arms in o["users"].items() if arm_of_side in of_arms}
        for side, arm_of_side in zip((first, second), arms, strict=True)
        for o in side
    ]
    users = sorted(set.intersection(*scored))
    sides = [
        np.mean([[o["users"][user][arm_of_side] for user in users] for o in side], axis=0)
        for side, arm_of_side in zip((first, second), arms, strict=True)
    ]
    difference = sides[0] - sides[1]
    low, high = paired_t.interval(difference) if len(users) > 1 else (None, None)
    p = paired_t.p_value(difference) if len(users) > 1 else None
    mean = float(difference.mean())
    return {"difference": mean, "low": low and float(low), "high": high and float(high), "p": p, "users": len(users)}
