"""Search methods' settings as the paper does: 20 random trials over rank, layers, positions and rate.

Every trial is a whole run of the app that is scored by the loss per token on *held-out history*: the last items of
each test user's history, which no stage trains on. No test query is read. Trial 0 is the starting point itself, so the
outcome is never worse there than what one started from; the n-th trial depends on the seed and n alone. `--over rates`
leaves all but the learning rates as they are; LoRA methods have nothing else to search. OUT/<task>/<method>.toml holds
the best settings, as `-c` takes them and `compare_methods.py --best OUT`; OUT/<task>/<method>.json all trials. A search
that was stopped goes on where it stood.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import console.installed  # noqa: F401  a Python without the project ends here
from cells import plan as grid
from cells.draws import OVER
from cells.estimate import duration, elapsed, estimates
from cells.run_cells import run_cells
from cells.searched import searches, table, write
from console import terminal
from console.command import GOES_ON, Parser, options_of, start, tell, told

from fed.lamp.tasks import TASKS
from fed.settings.methods import METHODS

EXAMPLES = """examples:
  python sims/search.py --task LaMP_4 --method perfit --data ../shared/data --dry-run
  python sims/search.py --task LaMP_4 --method perfit --data ../shared/data --out runs/search
  python sims/search.py --task LaMP_4,LaMP_7 --method perfit,oppu --data ../shared/data --over rates --trials 5 --jobs 2
  python sims/run.py sims/lamp4 -c runs/search/LaMP_4/perfit.toml -c 'data="../shared/data"'
"""


def parser() -> Parser:
    p = options_of(__doc__, EXAMPLES)
    p.add_argument("--task", required=True, metavar="T,…", help=f"of {', '.join(TASKS)}")
    p.add_argument("--method", default="perfit", metavar="M,…", help=f"of {', '.join(METHODS)} (default: perfit)")
    p.add_argument("--data", type=Path, metavar="DIR", help="folder with a folder per task (default: synthetic)")
    p.add_argument("--trials", type=int, default=20, metavar="N", help="the budget, in runs (default: 20, the paper's)")
    p.add_argument("--over", default="all", choices=OVER, help="what is drawn (default: all)")
    p.add_argument("--held-out", type=int, default=4, metavar="N", help="history items a user to score on (default: 4)")
    p.add_argument("--seed", type=int, default=0, help="of the draws and of every run (default: %(default)s)")
    p.add_argument("--preset", default="small", choices=grid.PRESETS, help="as of compare_methods.py (default: small)")
    p.add_argument("--out", type=Path, default=Path("runs/search"), metavar="DIR", help="default: %(default)s")
    p.add_run_config("settings of every trial")
    p.add_runtime()
    p.add_argument("--dry-run", action="store_true", help="print the trials and about how long they take, run nothing")
    return p


@told(stopped=GOES_ON)
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = terminal.console()
    searched = searches(options)
    drawn = {cell: settings for search in searched for cell, settings in search.drawn.items()}
    if options.dry_run:
        guesses = estimates(list(drawn), options.runtime)
        for cell, guess in guesses.items():
            words = " ".join(f"{key}={value}" for key, value in drawn[cell].items()) or "the starting point"
            console.print(f"{cell.task} {cell.label}  about {duration(guess)}  {words}", highlight=False)
        whole = duration(elapsed(guesses.values(), options.jobs, options.runtime))
        console.print(f"{len(drawn)} trials, about {whole} on two cores")
        return 0
    reports, lost = run_cells(list(drawn), options.out / "trials", console, jobs=options.jobs, runtime=options.runtime)
    if not reports:
        raise ValueError(f"no trial could be run; the first: {next(iter(lost.values()))}")
    failed = bool(lost)
    for search in searched:
        try:  # a method without a single good trial takes nothing from the others
            console.print(table(search, reports))
            print(write(options, search, reports))
        except ValueError as problem:
            failed = True
            tell(problem)
    return int(failed)


if __name__ == "__main__":
    start(main)
