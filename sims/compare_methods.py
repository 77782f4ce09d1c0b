"""PerFit against all that it is compared with, on LaMP's tasks: the paper's tables 2, 3 and 4, from the real app.

Every cell (task, method, seed) is one run of `sims/run.py`. A finished cell is kept in OUT/cells and not run again, so
a grid that was stopped goes on where it stood; a cell that was cut short, or whose settings or data changed, is run.
OUT holds tables.md, results.csv, results.json, differences.csv, index.html and tradeoff.png (figure 1 (b): a metric
against the share of parameters that is trained), written anew after every cell.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import console.installed  # noqa: F401  a Python without the project ends here
from cells import plan as grid
from cells.cell import Cell, same_stage1
from cells.estimate import duration, elapsed, estimates
from cells.plan import seeds_of
from cells.run_cells import Reports, run_cells
from console import terminal
from console.command import GOES_ON, Parser, at_least_one, device_of, options_of, start, told
from rich.console import Console
from scores import tables as method_tables
from scores.results import write
from simulation.apps import parsed

from fed.answering.comparisons import INTERVALS
from fed.lamp.tasks import TASKS, get_task

EXAMPLES = """examples:
  python sims/compare_methods.py --data ../shared/data --dry-run
  python sims/compare_methods.py --tasks LaMP_4,LaMP_7 --methods perfit,oppu,lora-p --data ../shared/data --seeds 0,1,2
  python sims/compare_methods.py --data ../shared/data --seeds 0 LaMP_4=0,1,2 LaMP_7=0,1,2 --jobs 2
  python sims/compare_methods.py --tasks LaMP_7 --methods perfit,oppu
  python sims/compare_methods.py --data /data/lamp --preset paper -c 'base-model="/models/llama-2-7b"'
"""


def parser() -> Parser:
    p = options_of(__doc__, EXAMPLES)
    p.add_argument("--tasks", default=",".join(TASKS), metavar="T,…", help="of %(default)s (default: all)")
    p.add_argument(
        "--methods",
        default=",".join(grid.COMPARED),
        metavar="M,…",
        help="default: %(default)s; settings of its own after a colon, such as rag:retrieved=4",
    )
    p.add_argument("--data", type=Path, metavar="DIR", help="folder with a folder per task (default: synthetic users)")
    p.add_argument(
        "--seeds",
        nargs="+",
        default=["0"],
        metavar="[TASK=]S,…",
        help="one run each; those of a task by its name, such as 0 LaMP_4=0,1,2 (default: 0)",
    )
    p.add_argument("--out", type=Path, default=Path("runs/methods"), metavar="DIR", help="default: %(default)s")
    p.add_argument(
        "--preset",
        default="small",
        choices=grid.PRESETS,
        help="small: caps for two cores, sims/grid.toml; app: each app as it stands; paper: its paper.toml "
        "(default: %(default)s)",
    )
    p.add_argument(
        "--best",
        type=Path,
        metavar="DIR",
        help="settings found by sims/search.py --out DIR; a task that was not searched takes those of one that was, "
        "if it can one that is answered alike, by labels or by texts",
    )
    p.add_run_config("settings of every cell")
    p.add_argument(
        "--against", default="perfit", metavar="M", help="whose differences to the others are tested (default: perfit)"
    )
    p.add_argument(
        "--interval",
        default="t",
        choices=INTERVALS,
        help="of a difference over users, 95 %%: t, or bca, a bootstrap for many users (default: %(default)s)",
    )
    p.add_runtime()
    p.add_argument("--dry-run", action="store_true", help="print the cells and about how long they take, run nothing")
    return p


def plan(options: argparse.Namespace) -> list[Cell]:
    """Raises ValueError for an option, a setting or data that would make a cell fail at once."""
    tasks = [get_task(name.strip()).name for name in options.tasks.split(",")]
    labels = [label.strip() for label in options.methods.split(",")]
    for name, values in (("tasks", tasks), ("methods", labels)):
        if len(set(values)) != len(values):
            raise ValueError(f"{name} must differ, got {','.join(values)}")
    at_least_one(options, "jobs")
    changes = parsed(options.run_config) | device_of(options)
    if options.best and not options.best.is_dir():
        raise ValueError(f"--best must be a folder that sims/search.py wrote, got {str(options.best)!r}")
    return grid.cells(
        seeds_of(options.seeds, tasks),
        labels,
        data=options.data,
        preset_name=options.preset,
        changes=changes,
        best=options.best,
    )


def run(cells: Sequence[Cell], options: argparse.Namespace, console: Console) -> int:
    """Run what is not finished and show the tables; returns how many cells failed."""

    def after(reports: Reports, lost: Mapping[Cell, str]) -> None:
        if reports:
            options.out.mkdir(parents=True, exist_ok=True)
            write(reports, lost, options)

    reports, lost = run_cells(cells, options.out / "cells", console, after, jobs=options.jobs, runtime=options.runtime)
    if reports:
        options.out.mkdir(parents=True, exist_ok=True)
        for section in method_tables.sections(write(reports, lost, options)):
            if section.is_main:
                console.print(method_tables.as_rich(section))
        console.print(f"wrote {options.out / 'index.html'}, tables.md, results.csv, results.json", highlight=False)
    return len(lost)


def show(cells: Sequence[Cell], options: argparse.Namespace, console: Console) -> None:
    """What would be run, and about how long it takes."""
    guesses, taken = estimates(cells, options.runtime), same_stage1(cells)
    left = {c: guess for c, guess in guesses.items() if c not in taken and not c.finished(options.out / "cells")}
    for cell in cells:
        state = f"about {duration(left[cell])}" if cell in left else "finished"
        if cell in taken:
            state = f"the stage 1 of {taken[cell].label}"
        console.print(f"{cell.task:8} {cell.label:20} seed {cell.seed}  {state}", highlight=False)
    whole = duration(elapsed(left.values(), options.jobs, options.runtime))
    console.print(
        f"{len(cells)} cells, {len(left)} of them to run, about {whole} on two cores; preset {options.preset}"
    )


@told(stopped=GOES_ON)
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    options.arguments = list(sys.argv[1:] if arguments is None else arguments)
    console = terminal.console()
    cells = plan(options)
    if options.dry_run:
        show(cells, options, console)
        return 0
    return int(run(cells, options, console) > 0)


if __name__ == "__main__":
    start(main)
