"""What memory do more actors and more users take?

    python sims/bench_memory.py --parts base,actors             # one base, two processes; two Ray actors of a run
    python sims/bench_memory.py --parts runs,stage2 --json memory.json

    base     processes that load the base and run one forward and backward pass: the pages of its file that they share
             (PSS: a page counts once, divided among them) and what their own memory grew by when they loaded it
    actors   the same file, seen from outside in the Ray actors of a real run with one CPU an actor
    runs     peak PSS of whole runs of `sims/run.py` with few and with many users, two short rows and two queries each;
             two users already fill the token budget, so that users are compared and not the widths of batches
    stage2   one message "train your private vectors" for 1,000 users to the real ClientApp: the process's memory as
             users are finished

Sizes are bytes. `--base-model random:tiny` (fed.base.random_base) makes the last two fast; then it is users that weigh.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import console.installed  # noqa: F401  a Python without the project ends here

from fed.base import sources

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from bench.memory import bench_actors, bench_base, bench_runs, bench_stage2, hold, show
from console import terminal
from console.command import numbers, options_of, parts_of, start, told
from console.files import write_json

from fed.base.random_base import save_tiny

PARTS = ("base", "actors", "runs", "stage2")


@told()
def main() -> int:
    p = options_of(__doc__)
    p.add_argument("--parts", default="base,actors", help=f"of {', '.join(PARTS)} (default: %(default)s)")
    p.add_argument("--base-model", default=sources.EMBEDDED)
    p.add_argument("--dtype", default="auto", help="of the part base")
    p.add_argument("--processes", type=int, default=2, metavar="N", help="of the part base (default: 2)")
    p.add_argument("--users", type=int, default=1000, metavar="N", help="of the part stage2 (default: 1000)")
    p.add_argument("--runs", type=numbers, default=[2, 100], metavar="U,…", help="users of the runs (default: 2,100)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    p.add_argument("--hold", action="store_true", help=argparse.SUPPRESS)
    options = p.parse_args()
    if options.hold:
        hold(options.base_model, options.dtype)
        return 0
    parts = parts_of(options.parts, PARTS)
    console = terminal.console()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="perfit-tiny-") as scratch, console.status("") as status:
        source = options.base_model
        if source == "random:tiny":
            source = scratch
            save_tiny(Path(scratch))
        started = time.monotonic()

        def say(text: str) -> None:
            status.update(f"{time.monotonic() - started:.0f} s, {text}")

        if "base" in parts:
            say(f"{options.processes} processes load the base")
            result["base"] = bench_base(source, options.dtype, options.processes)
        if "actors" in parts:
            result["actors"] = bench_actors(source, say)
        if "runs" in parts:
            result["runs"] = bench_runs(source, options.runs, say)
        if "stage2" in parts:
            result["stage2"] = bench_stage2(source, options.users, say)
    show(result, console)
    if options.json:
        write_json(options.json, result)
    return 0


if __name__ == "__main__":
    start(main)
