"""Search methods' settings as the paper does: 20 random trials over rank, layers, positions and rate.

Every trial is a whole run of the app that is scored by the loss per token on *held-out history*: the last items of
each test user's history, which no stage trains on. No test query is read. Trial 0 is the starting point itself, so the
outcome is never worse there than what one started from; the n-th trial depends on the seed and n alone. `--over rates`
leaves all but the learning rates as they are; LoRA methods have nothing else to search. OUT/<task>/<method>.toml holds
the best settings, as `-c` takes them and `compare_methods.py --best OUT`; OUT/<task>/<method>.json all trials. A search
that was stopped goes on where it stood.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import grid
import leaving
import method_scores
import terminal
from cells import Cell
from comm_tables import write_json, write_text
from compare_methods import Parser, parsed
from rich import box
from rich.table import Table
from run_cells import Reports, duration, estimates, run_cells

from fed import methods
from fed.base.skeleton import skeleton
from fed.lamp.tasks import TASKS, get_task
from fed.settings.methods import METHODS
from fed.settings.settings import Settings

EXAMPLES = """examples:
  python sims/search.py --task LaMP_4 --method perfit --data ../shared/data --dry-run
  python sims/search.py --task LaMP_4 --method perfit --data ../shared/data --out runs/search
  python sims/search.py --task LaMP_4,LaMP_7 --method perfit,oppu --data ../shared/data --over rates --trials 5 --jobs 2
  python sims/run.py sims/lamp4 -c runs/search/LaMP_4/perfit.toml -c 'data="../shared/data"'
"""
BLOCKS = (2, 3, 4, 6)  # how many decoder blocks are edited, evenly spaced
RANKS = {"stage1-rank": (2, 4, 8, 16), "stage2-rank": (1, 2, 4, 8)}
POSITIONS = {"positions": ("all-f1", "all", "prompt-f1", "l3", "f3+l3"), "stage2-positions": ("same", "l2", "l3")}
# Rates are drawn evenly in their logarithm; those of LoRA reach further, as its steps start from B = 0.
RATES = {"stage1-lr": (0.001, 0.016), "stage2-lr": (0.0003, 0.008)}
LORA_RATES = {"stage1-lr": (0.0005, 0.02), "stage2-lr": (0.0005, 0.02)}
# Draws of a uniform sequence in two dimensions (Roberts' R2: powers of the plastic number): a handful of trials already
# covers both rates, where independent draws leave gaps.
_STRIDES = (0.7548776662466927, 0.5698402909980532)
OVER = ("all", "rates")


def spaced(count: int, blocks: int) -> str:
    """`count` decoder blocks, evenly spaced in a base of `blocks`: 3 of 30 are 8,15,22."""
    return ",".join(str(blocks * (place + 1) // (count + 1)) for place in range(count))


def draw(trial: int, start: Settings, *, seed: int, over: str = "all") -> dict[str, Any]:
    """The settings of the n-th trial: none of its own for trial 0.

    Only settings that the method has a use for are drawn; `start` says which method and base model, `over` whether
    more than the rates is searched.
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
    if not lora and over == "all":
        found["layers"] = spaced(dice.choice([count for count in BLOCKS if count < base.layers]), base.layers)
        for stage, (rank, where) in enumerate(zip(RANKS, POSITIONS, strict=True), 1):
            found |= {rank: dice.choice(RANKS[rank])} if stages[stage] else {}
            found |= {where: dice.choice(POSITIONS[where])} if stages[stage] else {}
    shift = random.Random(f"{seed} {start.task} {start.method} rates")
    for stage, (key, (low, high)) in enumerate((LORA_RATES if lora else RATES).items(), 1):
        place = (shift.random() + trial * _STRIDES[stage - 1]) % 1.0
        rate = low * (high / low) ** place
        found |= {key: float(f"{rate:.3g}")} if stages[stage] else {}
    return found


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
    for name in ("trials", "held-out", "jobs"):
        if (value := getattr(options, name.replace("-", "_"))) < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    scoring = {"held-out": options.held_out, "max-queries": 0, "max-new-tokens": 0}
    tasks = [get_task(name).name for name in options.task.split(",")]
    starts = grid.cells(
        {task: [options.seed] for task in tasks},
        options.method.split(","),
        data=options.data,
        preset_name=options.preset,
        changes={**parsed(options.run_config), **scoring},
    )
    found = []
    for start in starts:
        drawn = {}
        for trial in range(options.trials):
            own = draw(trial, start.settings(), seed=options.seed, over=options.over)
            cell = Cell(start.task, f"{start.label}-{trial:02d}", options.seed, {**start.config, **own})
            cell.settings()
            drawn[cell] = own
        found.append(Search(start.task, start.label, drawn))
    return found


def score(report: dict[str, Any]) -> float:
    """Loss per token of the method's last arm, on held-out history."""
    return float(report["arms"][method_scores.last_arm(report)]["loss_per_token"])


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
    keys = sorted({key for own in search.drawn.values() for key in own})
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
    found = Table("trial", "loss on held-out history", "settings", box=box.SIMPLE_HEAD)
    found.title, found.title_justify = f"{search.method} on {search.task}", "left"
    best = best_of(search, reports)
    for cell in sorted((cell for cell in search.drawn if cell in reports), key=lambda one: score(reports[one])):
        words = " ".join(f"{key}={value}" for key, value in search.drawn[cell].items()) or "the starting point"
        found.add_row(cell.label + (" *" if cell == best else ""), f"{score(reports[cell]):.4f}", words)
    return found


def parser() -> Parser:
    p = Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--task", required=True, metavar="T,…", help=f"of {', '.join(TASKS)}")
    p.add_argument("--method", default="perfit", metavar="M,…", help=f"of {', '.join(METHODS)} (default: perfit)")
    p.add_argument("--data", type=Path, metavar="DIR", help="folder with a folder per task (default: synthetic)")
    p.add_argument("--trials", type=int, default=20, metavar="N", help="the budget, in runs (default: 20, the paper's)")
    p.add_argument("--over", default="all", choices=OVER, help="what is drawn (default: all)")
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
    console = terminal.console()
    try:
        found = searches(options)
        drawn = {cell: own for search in found for cell, own in search.drawn.items()}
        if options.dry_run:
            guesses = estimates(list(drawn))
            for cell, guess in guesses.items():
                words = " ".join(f"{key}={value}" for key, value in drawn[cell].items()) or "the starting point"
                console.print(f"{cell.task} {cell.label}  about {duration(guess)}  {words}", highlight=False)
            console.print(
                f"{len(drawn)} trials, about {duration(grid.elapsed(guesses.values(), options.jobs))} on two cores"
            )
            return 0
        reports, lost = run_cells(list(drawn), options.out / "trials", console, jobs=options.jobs)
        if not reports:
            raise ValueError(f"no trial could be run; the first: {next(iter(lost.values()))}")
        failed = bool(lost)
        for search in found:
            try:  # a method without a single good trial takes nothing from the others
                console.print(table(search, reports))
                print(write(options, search, reports))
            except ValueError as problem:
                failed = True
                print(f"error: {problem}", file=sys.stderr)
        return int(failed)
    except (ValueError, OSError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on where it stood", file=sys.stderr)
        return 130


if __name__ == "__main__":
    leaving.once()
    sys.exit(main())
