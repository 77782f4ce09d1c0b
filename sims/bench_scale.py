"""What does one more user cost? The real Flower app with a tiny base, from ten users to as many as one asks for.

    python sims/bench_scale.py --users 10,100,1000,10000 --json scale.json
    python sims/bench_scale.py --users 100000 --json scale.json            sizes that the file has are kept
    … --federation-config "client-resources-num-cpus=1"                    an actor on each core, not one on two

Every size is a run of `sims/run.py`: two SuperNodes in one Ray actor, all users in one round of stage 1, in stage 2 and
in the evaluation, two rows of 64 tokens each. The base (`fed.base.random_base`, 4 blocks, d = 32) costs next to
nothing, so what is seen is all that surrounds a model: rosters, messages, the ledger, the vault, the report. A
user-round is one user's share of one of the three phases; "server" is the share of all since the greeting in which no
client was at work. Beside FILE a plot of cost against users is written (.png and .svg).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import console.installed  # noqa: F401  a Python without the project ends here
from bench.scale import fits_table, grown, growth, measure, plot, table
from console import terminal
from console.command import numbers, options_of, start, told
from console.files import write_json
from rich.progress import Progress

from fed.base.random_base import save_tiny


@told()
def main() -> int:
    p = options_of(__doc__)
    p.add_argument("--users", type=numbers, default=[10, 100, 1000, 10_000], metavar="U,…", help="(10,100,1000,10000)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything there, and the plot beside it")
    p.add_argument("--federation-config", default="", metavar="'KEY=VALUE …'", help="as of sims/run.py")
    options = p.parse_args()
    console = terminal.console()
    sizes = kept(options.json)
    with tempfile.TemporaryDirectory(prefix="perfit-scale-") as scratch, Progress(console=console) as progress:
        base = Path(scratch) / "tiny"
        save_tiny(base)
        bar = progress.add_task("", total=len(options.users))
        for users in options.users:

            def say(line: str, users: int = users) -> None:
                progress.update(bar, description=f"{users:,} users: {line[:80]}")

            runs = Path(scratch) / "runs"
            size = measure(users, base, runs, say, federation=options.federation_config)
            sizes = sorted([*(one for one in sizes if one["users"] != users), size], key=lambda one: one["users"])
            progress.update(bar, advance=1)
            if options.json:  # after every size: the largest takes minutes
                write_json(options.json, {"runs": sizes, "exponents": growth(sizes), "fits": grown(sizes)})
                plot(sizes, options.json)
            # Last, for it takes minutes: a hundred thousand users' vault is 700,000 files and folders.
            shutil.rmtree(runs, ignore_errors=True)
    console.print(table(sizes))
    if len(sizes) > 1:
        console.print("seconds grow with users to the power of", ", ".join(f"{e:.2f}" for e in growth(sizes)))
        console.print(fits_table(sizes))
    return 0


def kept(file: Path | None) -> list[dict[str, Any]]:
    """The sizes that FILE has. Raises ValueError where it is none of this command's."""
    if file is None or not file.exists():
        return []
    try:
        return list(json.loads(file.read_text(encoding="utf-8"))["runs"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"--json must name a new file or one of bench_scale.py, got {str(file)!r}") from None


if __name__ == "__main__":
    start(main)
