"""What does it cost, in bytes, to personalize a language model for N users?

Compares PerFit (federated and private LoReFT edits) with OPPU, one LoRA per user (lora-p), one LoRA for everybody
(lora-c), FFA-LoRA and FedSA-LoRA: (a) federated training, (b) provisioning and storage, (c) edge-cloud serving. The
paper's tables 2 and 3 and FlowerTune's budget come first, from the same functions. Then (d), measured: perfit, oppu,
lora-p and lora-c each run in the Flower app on the embedded base, a few minutes together; `--analytic` leaves it out.
With `--out` a finished run is kept in OUT/cells and not run again. `--frontier` asks instead what PerFit's stage 1
loses where fewer bytes go up: wire dtypes, entropy coding, a frozen R, ranks; counted first, then run.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import console.installed  # noqa: F401  a Python without the project ends here
from communication.analysis import analyse
from communication.frontier import counted
from communication.measured import source_of
from communication.results import frontier, measure, write, write_frontier
from communication.tables import Report, frontier_tables, measured_tables, tables
from console import terminal
from console.command import Parser, at_least_one, options_of, start, told
from console.files import write_json
from rich.console import Console

from fed.base.skeleton import PRESETS, skeleton
from fed.communication.costs import PAPER_RANKS
from fed.communication.wire import WIRE_DTYPES

EXAMPLES = """examples:
  python sims/compare_comm.py
  python sims/compare_comm.py --data ../shared/data/LaMP_4 --out results
  python sims/compare_comm.py --frontier --data ../shared/data/LaMP_4 --out results
  python sims/compare_comm.py --analytic
  python sims/compare_comm.py --analytic --model llama-3.2-1b --users 10000 --rounds 50 --wire-dtype bfloat16
  python sims/compare_comm.py --analytic --model ./my-model --sum-ranks 24,12 --out results --json results/all.json
"""


def parser() -> Parser:
    p = options_of(__doc__, EXAMPLES)
    p.add_argument("--analytic", action="store_true", help="only what follows from the model's shapes; seconds")
    p.add_argument(
        "--frontier", action="store_true", help="uplink bytes against loss, instead; with --analytic the counted ones"
    )
    p.add_argument(
        "--model",
        default="llama-2-7b",
        help=f"{', '.join(PRESETS)}, a folder with a config.json, a GGUF file, or a hub id (default: %(default)s)",
    )
    analysed = p.add_argument_group("what is analysed (the measured runs are small and the same for every method)")
    analysed.add_argument(
        "--users", type=int, default=100, metavar="N", help="users who federate (default: %(default)s)"
    )
    analysed.add_argument("--rounds", type=int, default=20, metavar="N", help="federated rounds (default: %(default)s)")
    analysed.add_argument(
        "--fraction", type=float, default=0.1, metavar="F", help="of users sampled in a round, in (0, 1] (default: 0.1)"
    )
    p.add_argument(
        "--wire-dtype", default="float32", choices=list(WIRE_DTYPES), help="of every tensor (default: %(default)s)"
    )
    p.add_argument(
        "--sum-ranks",
        default=",".join(map(str, PAPER_RANKS)),
        metavar="S1,S2",
        help="PerFit's ranks added over the edited layers, of stages 1 and 2 (default: %(default)s, the paper's "
        "LaMP-7; 3 layers of ranks 8 and 4 are 24,12)",
    )
    p.add_argument(
        "--uses-per-day", type=int, default=20, metavar="N", help="of the cloud model, in (c) (default: %(default)s)"
    )
    p.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="LaMP_4 or LaMP_7 data for the measured part (default: the embedded synthetic users)",
    )
    p.add_argument("--seed", type=int, default=0, help="of the measured part (default: %(default)s)")
    p.add_runtime()
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything to one JSON file")
    p.add_argument("--out", type=Path, metavar="DIR", help="write tables (CSV, JSON) and figures (PNG, SVG) there")
    return p


@told(stopped="stopped; with --out the same command goes on where it stood")
def main(arguments: Sequence[str] | None = None) -> int:
    # Options that cannot be, before anything is built.
    options = parser().parse_args(arguments)
    console = terminal.console(110)
    at_least_one(options, "jobs")
    if options.data and options.analytic:
        raise ValueError("data concerns the measured part, which --analytic leaves out; give one of the two")
    if not options.analytic:
        source_of(options.data)
    for folder in (options.json.parent if options.json else None, options.out):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    if options.frontier:
        return _frontier(options, console)
    # What follows from the shapes, then what real runs sent.
    report = analyse(options)
    for table in tables(report):
        console.print(table)
    if not options.analytic:
        measure(options, report, console)
        for table in measured_tables(report["measured"], report["scenarios"]["quality"]):
            console.print(table)
    # The files, and the notes.
    wrote = []
    if options.json:
        wrote.append(f"wrote {write_json(options.json, report)}")
    if options.out:
        wrote.append(f"wrote {len(write(report, options.out))} files to {options.out}")
    for note in [*report["notes"], *wrote]:
        console.print(f"· {note}", highlight=False, markup=False)
    return 0


def _frontier(options: Namespace, console: Console) -> int:
    """The frontier's tables, files and notes. The measured base is the embedded one, and the counted one with it."""
    base = skeleton(options.model if options.analytic else "embedded")
    report: Report = {"model": base.name, "counted": counted(base)}
    if not options.analytic:
        frontier(options, report, console)
    for table in frontier_tables(report):
        console.print(table)
    if options.json:
        console.print(f"· wrote {write_json(options.json, report)}", highlight=False, markup=False)
    if options.out:
        console.print(f"· wrote {len(write_frontier(report, options.out))} files to {options.out}", highlight=False)
    return 0


if __name__ == "__main__":
    start(main)  # the runs in progress are ended too, not left behind
