"""Search a method's settings as the paper does: 20 random trials over rank, layers, positions and rate.

Every trial is a whole run of the app that is scored by the loss per token on *held-out history*: the last items of
each test user's history, which no stage trains on. No test query is read. Trial 0 is the starting point itself, so the
outcome is never worse there than what one started from; the n-th trial depends on the seed and n alone. LoRA methods
have rates to search, and no ranks, layers or positions. OUT/<task>/<method>.toml holds the best settings, as `-c` takes
them and `compare_methods.py --best OUT`; OUT/<task>/<method>.json all trials. A search that was stopped goes on where
it stood.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import grid
import method_scores
from cells import Cell
from comm_tables import write_json, write_text
from compare_methods import Parser, parsed
from rich import box
from rich.console import Console
from rich.table import Table
from run_cells import Reports, duration, estimates, run_cells

from fed import methods
from fed.lamp.tasks import TASKS, get_task
from fed.settings import METHODS, Settings
from fed.skeleton import skeleton

EXAMPLES = """examples:
  python sims/search.py --task LaMP_4 --method perfit --data ../shared/data --dry-run
  python sims/search.py --task LaMP_4 --method perfit --data ../shared/data --out runs/search
  python sims/run.py sims/lamp4 -c runs/search/LaMP_4/perfit.toml -c 'data="../shared/data"'
"""
BLOCKS = (2, 3, 4, 6)  # how many decoder blocks are edited, evenly spaced
RANKS = {"stage1-rank": (2, 4, 8, 16), "stage2-rank": (1, 2, 4, 8)}
POSITIONS = {"positions": ("all", "prompt", "l3", "f3+l3"), "stage2-positions": ("same", "l2", "l3")}
# Rates are drawn evenly in their logarithm; LoRA's lie lower, as its steps are larger.
RATES = {"stage1-lr": (0.0005, 0.01), "stage2-lr": (0.0002, 0.005)}
LORA_RATES = {"stage1-lr": (0.0002, 0.003), "stage2-lr": (0.0001, 0.002)}


def spaced(count: int, blocks: int) -> str:
    """`count` decoder blocks, evenly spaced in a base of `blocks`: 3 of 30 are 8,15,22."""
    return ",".join(str(blocks * (place + 1) // (count + 1)) for place in range(count))


def draw(trial: int, start: Settings, *, seed: int) -> dict[str, Any]:
    """The settings of the n-th trial: none of its own for trial 0.

    Only settings that the method has a use for are drawn; `start` says which method and base model.
    Raises ValueError for a method that trains nothing.
    """
    base = skeleton(start.base_source)
    method = methods.make(start, base)
    stages = {1: bool(method.collective_shapes()), 2: bool(method.private_shapes())}
    if not any(stages.values()):
        raise ValueError(f"method must have something to train for a search, and {start.method} trains nothing")
    if not trial:
        return {}
    dice = random.Random(f"{seed} {start.task} {start.method} {trial}")
    lora = method.engine == "peft"
    found: dict[str, Any] = {}
    if not lora:
        found["layers"] = spaced(dice.choice([count for count in BLOCKS if count < base.layers]), base.layers)
        for stage, (rank, where) in enumerate(zip(RANKS, POSITIONS, strict=True), 1):
            found |= {rank: dice.choice(RANKS[rank])} if stages[stage] else {}
            found |= {where: dice.choice(POSITIONS[where])} if stages[stage] else {}
    for stage, (key, (low, high)) in enumerate((LORA_RATES if lora else RATES).items(), 1):
        rate = math.exp(dice.uniform(math.log(low), math.log(high)))
        found |= {key: float(f"{rate:.3g}")} if stages[stage] else {}
    return found


def trials(options: argparse.Namespace) -> list[Cell]:
    """One cell a trial. Raises ValueError for whatever would make a trial fail at once."""
    for name in ("trials", "held-out", "jobs"):
        if (value := getattr(options, name.replace("-", "_"))) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    task, label = get_task(options.task).name, options.method
    scoring = {"held-out": options.held_out, "max-queries": 0, "max-new-tokens": 0}
    (start,) = grid.cells(
        {task: [options.seed]},
        [label],
        data=options.data,
        preset_name=options.preset,
        changes={**parsed(options.run_config), **scoring},
    )
    found = []
    for trial in range(options.trials):
        own = draw(trial, start.settings(), seed=options.seed)
        cell = Cell(task, f"trial-{trial:02d}", options.seed, {**start.config, **own})
        cell.settings()
        found.append(cell)
    return found


def score(report: dict[str, Any]) -> float:
    """Loss per token of the method's last arm, on held-out history."""
    return float(report["arms"][method_scores.last_arm(report)]["loss_per_token"])


def write(options: argparse.Namespace, cells: Sequence[Cell], reports: Reports) -> tuple[Path, Cell]:
    """The best settings as TOML and all trials as JSON. Returns the TOML's path and the best trial."""
    start = cells[0].settings().as_config()
    own = [draw(trial, cells[0].settings(), seed=options.seed) for trial in range(len(cells))]
    keys = sorted({key for one in own for key in one})
    order = {cell: (score(report), place) for place, (cell, report) in enumerate(reports.items())}
    best = min((cell for cell in reports if math.isfinite(order[cell][0])), key=order.__getitem__, default=None)
    if best is None:
        raise ValueError(f"no trial of {options.method} on {options.task} ended with a finite loss")
    drawn = dict(zip(cells, own, strict=True))
    took = sum(report["seconds"]["wall"] for report in reports.values())
    head = (
        f"# {options.method} on {options.task}: the best of {len(reports)} trials ({best.label}), found by\n"
        f"# sims/search.py --trials {options.trials} --seed {options.seed} --held-out {options.held_out} "
        f"--preset {options.preset}, {duration(took)} of runs.\n"
        f"# Loss per token on held-out history {score(reports[best]):.4f}"
        + (f", at the starting point {score(reports[cells[0]]):.4f}.\n" if cells[0] in reports else ".\n")
    )
    folder = options.out / options.task
    folder.mkdir(parents=True, exist_ok=True)
    values = {key: {**start, **drawn[best]}[key] for key in keys}
    body = "".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items())
    file = write_text(folder / f"{options.method}.toml", head + body)
    rows = [
        {"trial": cell.label, "loss_per_token": order[cell][0], "settings": {**drawn[cell]}, "arms": report["arms"]}
        for cell, report in sorted(reports.items(), key=lambda one: order[one[0]])
    ]
    write_json(folder / f"{options.method}.json", {"best": best.label, "seconds": took, "trials": rows})
    return file, best


def table(cells: Sequence[Cell], reports: Reports, best: Cell, seed: int) -> Table:
    """The trials, best first."""
    found = Table("trial", "loss on held-out history", "settings", box=box.SIMPLE_HEAD)
    for cell in sorted(reports, key=lambda one: score(reports[one])):
        own = draw(cells.index(cell), cells[0].settings(), seed=seed)
        words = " ".join(f"{key}={value}" for key, value in own.items()) or "the starting point"
        found.add_row(cell.label + (" *" if cell == best else ""), f"{score(reports[cell]):.4f}", words)
    return found


def parser() -> Parser:
    p = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--task", required=True, metavar="T", help=f"one of {', '.join(TASKS)}")
    p.add_argument("--method", default="perfit", metavar="M", help=f"one of {', '.join(METHODS)} (default: perfit)")
    p.add_argument("--data", type=Path, metavar="DIR", help="folder with a folder per task (default: synthetic)")
    p.add_argument("--trials", type=int, default=20, metavar="N", help="the budget, in runs (default: 20, the paper's)")
    p.add_argument("--held-out", type=int, default=4, metavar="N", help="history items a user to score on (default: 4)")
    p.add_argument("--seed", type=int, default=0, help="of the draws and of every run (default: %(default)s)")
    p.add_argument("--preset", default="small", choices=grid.PRESETS, help="as of compare_methods.py (default: small)")
    p.add_argument("--out", type=Path, default=Path("runs/search"), metavar="DIR", help="default: %(default)s")
    p.add_argument("-c", "--run-config", action="append", default=[], metavar="'KEY=VALUE …'", help="of every trial")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="trials at a time (default: 1)")
    p.add_argument("--dry-run", action="store_true", help="print the trials and about how long they take, run nothing")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    try:
        cells = trials(options)
        if options.dry_run:
            for number, (cell, guess) in enumerate(estimates(cells).items()):
                own = draw(number, cells[0].settings(), seed=options.seed)
                words = " ".join(f"{key}={value}" for key, value in own.items()) or "the starting point"
                console.print(f"{cell.label}  about {duration(guess)}  {words}", highlight=False)
            console.print(f"{len(cells)} trials, about {duration(sum(estimates(cells).values()))} on two cores")
            return 0
        reports, lost = run_cells(cells, options.out / options.task / options.method, console, jobs=options.jobs)
        if not reports:
            raise ValueError(f"no trial could be run; the first: {next(iter(lost.values()))}")
        file, best = write(options, cells, reports)
        console.print(table(cells, reports, best, options.seed))
        print(file)
        return int(bool(lost))
    except (ValueError, OSError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stood", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
