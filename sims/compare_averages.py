"""Which average of users' edits: the test loss after each round of stage 1, for every average, drift and seed.

Every cell is a few rounds by the product's own training and averages, in this process: the same users, draws and rows
whatever the average is. Drift is how far users go before they are averaged, in local epochs. The collective edit is
tested on users who do not train. FILE is written anew after every cell; FILE's name with .png and .svg is the figure.

With --attackers, 10, 20 and 30 % of each round's users lie instead (the opposite map, one 30 times as large, noise, a
trained backdoor), and every average is held against them, the robust ones knowing how many there are. Nothing screens
the replies here: the table is of the averages alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import console.installed  # noqa: F401  a Python without the project ends here

import fed  # noqa: F401  threads are bounded before torch is loaded

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from averages import outcome
from averages.attacks import ATTACKS
from averages.cells import TRUSTING, Cell, Kept, attacked, drifting
from averages.federation import Federation, pooled
from cells.cell import content_of
from console import terminal
from console.command import GOES_ON, Parser, at_least_one, device_of, numbers, options_of, start, told
from console.files import write_json
from console.machine import machine
from exploration.figures import as_rich, save
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from simulation.apps import SIMS, app_of, settings_of, words

from fed import methods
from fed.averages.average import AVERAGES
from fed.lamp.tasks import TASKS
from fed.settings.settings import Settings
from server_strategy.report.report import git_commit

EXAMPLES = """examples:
  python sims/compare_averages.py --data ../shared/data --json runs/averages.json
  python sims/compare_averages.py --data ../shared/data --json runs/attackers.json --attackers
  python sims/compare_averages.py --json runs/tiny.json -c 'base-model="random:tiny" layers="1,2" stage1-lr=0.03'
"""
# A few users, rows and late blocks: a cell is a minute on one core. -c says otherwise.
SMALL: dict[str, Any] = {
    "method": "perfit-stage1",
    "cohorts": "paper",
    "stage1-users": 10,
    "stage2-users": 12,
    "max-items": 8,
    "max-queries": 4,
    "fraction": 1.0,
    "layers": "22,26",
    "batch-size": 4,
    "stage1-lr": 0.005,
    "max-length": 128,
    "token-budget": 2048,
}


def parser() -> Parser:
    p = options_of(__doc__, EXAMPLES)
    p.add_argument("--data", default="synthetic", metavar="DIR", help="LaMP or OPPU layout; default: made-up users")
    p.add_argument("--task", default="LaMP_4", choices=TASKS, metavar="T", help="default: %(default)s")
    p.add_argument("--json", type=Path, required=True, metavar="FILE", help="results; cells that it has are not run")
    p.add_argument("--averages", metavar="A,…", help=f"of {', '.join(AVERAGES)} (default: those that trust all users)")
    p.add_argument("--drifts", default="1,8", metavar="N,…", help="local epochs (default: %(default)s)")
    p.add_argument("--seeds", default="0,1,2", metavar="N,…", help="default: %(default)s")
    p.add_argument("--rounds", type=int, default=3, metavar="N", help="of a cell (default: %(default)s)")
    lies = f"10, 20 and 30 %% of users lie: {', '.join(ATTACKS)}"
    p.add_argument("--attackers", action="store_true", help=lies)
    p.add_argument("--device", default="auto", help="cuda, cpu, … (default: %(default)s)")
    p.add_run_config()
    return p


@told(stopped=GOES_ON)
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    at_least_one(options, "rounds")
    settings, of = _asked(options)
    console = terminal.console()
    kept = Kept(options.json, of)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    cells = _cells(options)
    if todo := [cell for cell in cells if cell not in kept]:
        _run(todo, kept, settings, of, options.json, console)
    # What is in the file now, whoever wrote it.
    results = kept.results()
    gaps = [] if options.attackers else outcome.differences(results)
    write_json(options.json, {"of": of, "cells": results, "differences": gaps})
    for table in (outcome.attack_tables if options.attackers else outcome.tables)(results):
        console.print(as_rich(table))
    if not options.attackers:
        caption = f"{settings.task}, {settings.stage1_users} users a round at most, layers {settings.layers}"
        save(outcome.drawing(results, options.json.stem, caption), options.json.parent)
    console.print(f"· wrote {options.json}", highlight=False, markup=False)
    return 0


def _asked(options: Any) -> tuple[Settings, dict[str, Any]]:
    """The settings that all cells share, and what the file says its cells are of. Raises ValueError."""
    shared = {**SMALL, "data": options.data, "rounds": options.rounds, **device_of(options)}
    settings = settings_of(SIMS / app_of(options.task), [words(shared), *options.run_config])
    if settings.method not in ("perfit", "perfit-stage1"):
        raise ValueError(f"method must be perfit or perfit-stage1, whose edits are averaged, got {settings.method!r}")
    per_cell = {"average", "local-epochs", "seed", "attackers", "exact-rank"}
    of = {key: value for key, value in settings.as_config().items() if key not in per_cell}
    content = content_of(settings.data_source, settings.task)
    return settings, of | {"content": content, "attackers": options.attackers}


def _cells(options: Any) -> list[Cell]:
    averages = options.averages.split(",") if options.averages else list(AVERAGES if options.attackers else TRUSTING)
    if unknown := [name for name in averages if name not in AVERAGES]:
        raise ValueError(f"--averages must be of {', '.join(AVERAGES)}, got {', '.join(unknown)}")
    drifts, seeds = numbers(options.drifts), numbers(options.seeds)
    if min(drifts) < 1 or min(seeds) < 0:
        raise ValueError(f"--drifts must be 1 or more, --seeds 0 or more, got {options.drifts} and {options.seeds}")
    if not options.attackers:
        return list(drifting(averages, drifts, seeds))
    return list(attacked(averages, drifts[0], seeds[0]))


def _run(todo: Sequence[Cell], kept: Kept, settings: Settings, of: dict[str, Any], file: Path, console: Any) -> None:
    """Run the cells that are missing; the file is whole after each."""
    federation = Federation.of(settings)
    users = len(federation.users_of(settings, 1))
    made_by: dict[str, Any] = {
        "machine": machine(federation.base.device),
        "commit": git_commit(),
        "dtype": federation.base.dtype,
    }
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        untrained = pooled(federation.losses(methods.make(settings, federation.base.skeleton), None, federation.test))
        made_by["base_loss"] = untrained
        task = progress.add_task("rounds", total=len(todo) * settings.rounds)
        for cell in todo:
            progress.update(task, description=f"{cell.average} {cell.attack} epochs {cell.epochs} seed {cell.seed}")
            result: dict[str, Any]
            try:
                own = cell.settings(settings, users, federation.base.skeleton.hidden_size)
                rounds = federation.play(
                    own, attack=cell.attack, liars=cell.liars(users), on_round=lambda: progress.advance(task)
                )
                result = {"rounds": rounds, **made_by}
            except ValueError as refusal:
                result = {"refused": str(refusal), **made_by}
                progress.advance(task, settings.rounds)
            kept.add(cell, result)
            write_json(file, {"of": of, "cells": kept.results(), "differences": []})


if __name__ == "__main__":
    start(main)
