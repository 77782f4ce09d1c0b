"""From a message to the first training step, on a device: every message is a process of its own there.

    python sims/bench_restart.py                                  # the embedded base, five processes a message
    python sims/bench_restart.py --base-model /models/llama --dtype float32 --repeats 3 --json restart.json

Each repeat is a fresh process that does what Flower's `flwr-clientapp` does once it has its message: it imports Flower
and the ClientApp, and hands the app a real message, `query.hello` or `train`. Printed are medians, CPU and wall
seconds, of each part and of the whole; a training process is stopped at its first optimizer step. Not in it: Flower's
own fetching of the message (polling every 3 s) and the SuperExec that starts the process. The user is synthetic.
"""

from __future__ import annotations

from pathlib import Path

import console.installed  # noqa: F401  a Python without the project ends here
from bench.restart import run, table
from console.command import at_least_one, options_of, start, told
from console.files import write_json


@told()
def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("--base-model", default="embedded", help="hub id, folder, GGUF file or `embedded` (default)")
    parser.add_argument("--dtype", default="auto", help="auto (default), float32, bfloat16, float16")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="processes for each message (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the medians, too")
    options = parser.parse_args()
    at_least_one(options, "repeats")
    medians = run(options)
    for kind, parts in medians.items():
        print(table(kind, parts, options.repeats))
    if options.json:
        write_json(options.json, medians)
    return 0


if __name__ == "__main__":
    start(main)
