"""How fast is the engine, and what memory does it take, against training users one by one with pyreft and PEFT?

    python sims/bench_engine.py                 # all parts; about eight minutes on two cores
    python sims/bench_engine.py --parts train --users 32 --rows 2 --repeats 5 --json bench.json
    python sims/bench_engine.py --parts profile            # what holds our step, and what its products would allow
    python sims/bench_engine.py --base-model random:llama-2-7b --device cuda --users 8 --rows 16 --layers 10,16,22

One process, one base, the same rows, dtype and threads. The engines take turns and every number is a median over the
repeats, with the smallest and the largest beside it; ratios are medians of the ratios within a repeat, so a machine
that slows down for a while slows both sides. All rows have 48 tokens, 20 of them labels, as in shared texts of the
synthetic users. A GPU's peak memory is torch's count of what tensors took, and its speed is set against that of a large
product in the same run. Users that train one after the other are timed on the first few of the U (`timed users`): their
tokens/s do not depend on how many follow.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fed.base import sources

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from bench.cases import bench_cache, bench_generation, bench_prefix, bench_profile
from bench.engine_tables import show
from bench.step_profile import flops_per_token, peak_speed
from bench.training_cases import LABELS, TOKENS, bench_training
from console.command import numbers
from console.machine import commit, machine_of
from rich.console import Console
from rich.progress import Progress

from fed.base import model as base_model
from fed.base import random_base
from fed.base.device import DTYPES

PARTS = ("train", "cache", "prefix", "generate", "profile")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--parts", default=",".join(PARTS), help="which of them (default: %(default)s)")
    p.add_argument("--users", type=numbers, default=[8, 32], metavar="U,…", help="(default: 8,32)")
    p.add_argument("--rows", type=numbers, default=[2, 4, 16], metavar="N,…", help="rows a user (default: 2,4,16)")
    p.add_argument("--timed-users", type=int, default=2, metavar="N", help="of those alone (default: %(default)s)")
    p.add_argument(
        "--repeats", type=int, default=3, metavar="N", help="timed turns of each engine (default: %(default)s)"
    )
    p.add_argument(
        "--layers", type=lambda t: tuple(numbers(t)), default=(10, 16, 22), metavar="L,…", help="edited blocks"
    )
    p.add_argument("--base-model", default=sources.EMBEDDED, help="or random:llama-2-7b, random:tiny, …")
    p.add_argument("--dtype", default="auto")
    p.add_argument("--device", default="auto")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    options = p.parse_args()
    console = Console()
    try:
        if unknown := set(options.parts.split(",")) - set(PARTS):
            raise ValueError(f"parts must be among {', '.join(PARTS)}, got {', '.join(sorted(unknown))}")
        load = random_base.load if options.base_model.startswith(random_base.PREFIX) else base_model.load
        base = load(options.base_model, device=options.device, dtype=options.dtype)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    result: dict[str, Any] = {
        "commit": commit(),
        "machine": machine_of(base.device),
        "base_model": base.describe(),
        "layers": options.layers,
        "repeats": options.repeats,
        "train": [],
        "cache": [],
        "prefix": None,
        "generate": None,
        "profile": None,
        "peak_flops_per_second": None,
    }
    console.print(f"{base.name}, {base.dtype} on {base.device}; {result['machine']}; commit {result['commit']}")
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=None)

        def tick(case: str) -> Callable[[str], None]:
            return lambda engine: progress.update(bar, description=f"{case}, {engine}", advance=1)

        if "train" in options.parts:
            for users in options.users:
                for rows in options.rows:
                    name = f"training, {users} users × {rows} rows"
                    case = bench_training(
                        base, users, rows, options.layers, options.repeats, options.timed_users, tick(name)
                    )
                    result["train"].append(case)
        if "cache" in options.parts:
            for first in (base.skeleton.layers // 3, base.skeleton.layers // 2):
                result["cache"].append(bench_cache(base, first, options.repeats, 8, 4, tick(f"cache below {first}")))
        if "prefix" in options.parts:
            result["prefix"] = bench_prefix(base, options.layers, options.repeats, 8, 4, tick("prefix"))
        if "generate" in options.parts:
            result["generate"] = bench_generation(base, 32, options.layers, options.repeats, tick("generation"))
        if "profile" in options.parts:
            result["profile"] = bench_profile(base, options.layers, options.repeats, 16, tick("profile"))
        if base.device.startswith("cuda"):
            peak = result["peak_flops_per_second"] = peak_speed(base.device, DTYPES[base.dtype])
            flops = flops_per_token(base, options.layers, TOKENS, LABELS, epochs=2)
            as_counted = {"alone": "ours", "together": "ours"}
            for case in result["train"]:
                case["share_of_peak"] = {
                    name: one["tokens_per_second"] * flops[as_counted.get(name, name)] / peak
                    for name, one in case["engines"].items()
                }
    show(result, console)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
