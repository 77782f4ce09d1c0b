"""What the vectors show: the exploration that PerFit is built on, on any base model and any data in the known layouts.

A user's δ-vector is what the user's own history before a query does to the hidden state at the query's last token. Each
subcommand asks one thing of them, or of runs of the app, and leaves OUT/TASK/<subcommand>.json with its numbers, and
its figures beside it as PNG and SVG. `report` makes one page of all of them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import console.installed  # noqa: F401  a Python without the project ends here
from console import terminal
from console.command import GOES_ON, Parser, options_of, start, told
from console.files import write_json
from exploration import learned, neighbours, options, page, rank, shift, steer, vectors
from exploration.figures import as_rich, save
from exploration.sweeps import layers, ranks, trade_off

EXAMPLES = """examples:
  python sims/explore.py rank --data ../shared/data --task LaMP_4
  python sims/explore.py shift --data ../shared/data --task LaMP_7 --layer 10
  python sims/explore.py layers --data ../shared/data --task LaMP_4 --every 3 --users 4
  python sims/explore.py report
"""
COMMANDS: dict[str, ModuleType] = {
    "delta-vectors": vectors,
    "rank": rank,
    "shift": shift,
    "neighbours": neighbours,
    "layers": layers,
    "ranks": ranks,
    "trade-off": trade_off,
    "learned": learned,
    "steer": steer,
}


def parser() -> Parser:
    p = options_of(__doc__, EXAMPLES)
    commands = p.add_subparsers(dest="command", required=True, metavar="SUBCOMMAND")
    for name, module in COMMANDS.items():
        summary, description = module.SUMMARY.replace("%", "%%"), (module.__doc__ or "").replace("%", "%%")
        one = commands.add_parser(name, help=summary, description=description)
        options.add(one)
        module.add_options(one)
    report = commands.add_parser("report", help=page.SUMMARY, description=page.__doc__)
    report.add_argument("--out", type=Path, default=Path("runs/explore"), metavar="DIR", help="default: %(default)s")
    return p


@told(stopped=GOES_ON)
def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    console = terminal.console()
    if asked.command == "report":
        console.print(f"wrote {page.write(asked.out, COMMANDS)}", highlight=False, markup=False)
        return 0
    module = COMMANDS[asked.command]
    result = module.run(asked, console)
    folder = options.folder(asked)
    folder.mkdir(parents=True, exist_ok=True)
    files = [write_json(folder / f"{asked.command}.json", result)]
    for drawing in module.drawings(result):
        files += save(drawing, folder)
    for table in module.tables(result):
        console.print(as_rich(table))
    for line in [*module.words(result), f"wrote {', '.join(file.name for file in files)} to {folder}"]:
        console.print(f"· {line}", highlight=False, markup=False)
    return 0


if __name__ == "__main__":
    start(main)
