"""What a search found: its trials scored on held-out history, the best of them written down."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console.command import at_least_one, device_of
from console.files import write_json
from rich import box
from rich.table import Table
from simulation.apps import parsed

from cells import plan as grid
from cells.cell import Cell
from cells.draws import draw
from cells.estimate import duration
from cells.run_cells import Reports
from fed.answering import evaluation
from fed.atomic_write import write_text
from fed.lamp.tasks import get_task


@dataclass(frozen=True)
class Search:
    """One method on one task: its trials' cells, and what each of them drew."""

    task: str
    method: str
    drawn: Mapping[Cell, Mapping[str, Any]]

    @property
    def start(self) -> Cell:
        return next(iter(self.drawn))


def searches(options: argparse.Namespace) -> list[Search]:
    """One for each task and method. Raises ValueError for whatever would make a trial fail at once."""
    at_least_one(options, "trials", "held-out", "jobs")
    scoring = {"held-out": options.held_out, "max-queries": 0, "max-new-tokens": 0}
    tasks = [get_task(name).name for name in options.task.split(",")]
    starts = grid.cells(
        {task: [options.seed] for task in tasks},
        options.method.split(","),
        data=options.data,
        preset_name=options.preset,
        changes={**parsed(options.run_config), **device_of(options), **scoring},
    )
    every_search = []
    for start in starts:
        drawn = {}
        for trial in range(options.trials):
            drawn_settings = draw(trial, start.settings(), seed=options.seed, over=options.over)
            cell = Cell(start.task, f"{start.label}-{trial:02d}", options.seed, {**start.config, **drawn_settings})
            cell.settings()
            drawn[cell] = drawn_settings
        every_search.append(Search(start.task, start.label, drawn))
    return every_search


def score(report: dict[str, Any]) -> float:
    """Loss per token of the method's last arm, on held-out history."""
    return float(report["arms"][evaluation.last_arm(report)]["loss_per_token"])


def best_of(search: Search, reports: Reports) -> Cell:
    """The trial with the lowest finite loss, the earlier one of equals. Raises ValueError where there is none."""
    ended = [cell for cell in search.drawn if cell in reports and math.isfinite(score(reports[cell]))]
    if not ended:
        raise ValueError(f"no trial of {search.method} on {search.task} ended with a finite loss")
    return min(ended, key=lambda cell: score(reports[cell]))


def write(options: argparse.Namespace, search: Search, reports: Reports) -> Path:
    """The best settings as TOML and all trials as JSON. Returns the TOML's path."""
    best, first = best_of(search, reports), search.start
    ended = sorted((cell for cell in search.drawn if cell in reports), key=lambda cell: score(reports[cell]))
    took = sum(reports[cell]["seconds"]["wall"] for cell in ended)
    head = (
        f"# {search.method} on {search.task}: the best of {len(ended)} trials ({best.label}), found by\n"
        f"# sims/search.py --over {options.over} --trials {options.trials} --seed {options.seed} "
        f"--held-out {options.held_out} --preset {options.preset}, {duration(took)} of runs.\n"
        f"# Loss per token on held-out history {score(reports[best]):.4f}"
        + (f", at the starting point {score(reports[first]):.4f}.\n" if first in reports else ".\n")
    )
    folder = options.out / search.task
    folder.mkdir(parents=True, exist_ok=True)
    start = first.settings().as_config()
    keys = sorted({key for drawn in search.drawn.values() for key in drawn})
    values = {key: {**start, **search.drawn[best]}[key] for key in keys}
    body = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    file = write_text(folder / f"{search.method}.toml", head + body)
    rows = [
        {
            "trial": cell.label,
            "loss_per_token": score(reports[cell]),
            "settings": {**search.drawn[cell]},
            "arms": reports[cell]["arms"],
        }
        for cell in ended
    ]
    write_json(folder / f"{search.method}.json", {"best": best.label, "seconds": took, "trials": rows})
    return file


def table(search: Search, reports: Reports) -> Table:
    """The trials, best first."""
    shown = Table("trial", "loss on held-out history", "settings", box=box.SIMPLE_HEAD)
    shown.title, shown.title_justify = f"{search.method} on {search.task}", "left"
    best = best_of(search, reports)
    for cell in sorted((cell for cell in search.drawn if cell in reports), key=lambda cell: score(reports[cell])):
        words = " ".join(f"{key}={value}" for key, value in search.drawn[cell].items()) or "the starting point"
        shown.add_row(cell.label + (" *" if cell == best else ""), f"{score(reports[cell]):.4f}", words)
    return shown
