"""From a message to the first training step, on a device: every message is a process of its own there.

    python sims/bench_restart.py                                  # the embedded base, five processes a message
    python sims/bench_restart.py --base-model /models/llama --dtype float32 --repeats 3 --json restart.json

Each repeat is a fresh process that does what Flower's `flwr-clientapp` does once it has its message: it imports Flower
and the ClientApp, and hands the app a real message, `query.hello` or `train`. Printed are medians, CPU and wall
seconds, of each part and of the whole; a training process is stopped at its first optimizer step. Not in it: Flower's
own fetching of the message (polling every 3 s) and the SuperExec that starts the process. The user is synthetic.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.restart import run, table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", default="embedded", help="hub id, folder, GGUF file or `embedded` (default)")
    parser.add_argument("--dtype", default="auto", help="auto (default), float32, bfloat16, float16")
    parser.add_argument("--repeats", type=int, default=5, metavar="N", help="processes for each message (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the medians, too")
    options = parser.parse_args()
    try:
        if options.repeats < 1:
            raise ValueError(f"--repeats must be at least 1, got {options.repeats}")
        found = run(options)
    except (ValueError, OSError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    for kind, parts in found.items():
        print(table(kind, parts, options.repeats))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
