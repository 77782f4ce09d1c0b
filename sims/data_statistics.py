"""What a task's data hold, as PerFit's table 5: users, rows a user and lengths, of stage 1, stage 2 and the test.

Counts the rows that a run would train and ask, from a folder in OPPU's or LaMP's layout, or of the made-up users.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import console.installed  # noqa: F401  a Python without the project ends here
from console import terminal
from console.command import Parser, options_of, start, told
from console.files import write_json
from corpora.table5 import parts, table
from rich.progress import Progress

from fed.lamp.layouts import find_files
from fed.lamp.records import open_corpus
from fed.lamp.tasks import TASKS, Task, get_task

EXAMPLES = """examples:
  python sims/data_statistics.py
  python sims/data_statistics.py --data ../shared/data --json statistics.json
  python sims/data_statistics.py --data /data/LaMP --tasks LaMP_4 --tested 100
"""


def parser() -> Parser:
    p = options_of(__doc__, EXAMPLES)
    p.add_argument("--data", type=Path, metavar="DIR", help="a task's folder or its parent (default: synthetic users)")
    p.add_argument("--tasks", default="", metavar="T,…", help=f"of {', '.join(TASKS)} (default: those that there are)")
    p.add_argument("--tested", type=int, default=0, metavar="N", help="as the setting stage2-users (default: 0, all)")
    p.add_argument("--seed", type=int, default=0, help="of the synthetic users (default: %(default)s)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    return p


def present(folder: Path | None) -> list[Task]:
    """The tasks whose data there are: the folder's, or those with made-up users. Raises ValueError for none."""
    found, why = [], ""
    for task in TASKS.values():
        try:
            if folder is None:
                open_corpus("synthetic", task)
            else:
                find_files(folder.expanduser(), task)
            found.append(task)
        except ValueError as problem:
            why = why or str(problem)
    if not found:
        raise ValueError(why)
    return found


@told()
def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    if options.tested < 0:
        raise ValueError(f"--tested must not be negative, got {options.tested}; 0 takes all")
    tasks = [get_task(name) for name in options.tasks.split(",")] if options.tasks else present(options.data)
    console = terminal.console()
    source = "synthetic" if options.data is None else str(options.data.expanduser())
    counted = []
    with Progress(console=console, transient=True) as progress:
        for task in tasks:
            corpus = open_corpus(source, task, seed=options.seed)
            bar = progress.add_task(task.name, total=sum(map(len, corpus.cohorts.values())))
            counted += parts(corpus, tested=options.tested, seen=partial(progress.advance, bar))
    console.print(table(counted, "synthetic users" if options.data is None else options.data.name))
    if options.json:
        content = {"data": source, "parts": [part.as_json() for part in counted]}
        print(f"wrote {write_json(options.json, content)}")
    return 0


if __name__ == "__main__":
    start(main)
