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

import os
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import console.installed  # noqa: F401  a Python without the project ends here

import fed  # noqa: F401  threads are bounded before torch is loaded

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from bench.cases import bench_cache, bench_generation, bench_later, bench_prefix
from bench.engine_tables import show
from bench.step_profile import bench_profile, flops_per_token, peak_speed
from bench.training_cases import LABELS, PLAN, TOKENS, bench_training
from console.command import Parser, numbers, options_of, parts_of, start, told
from console.files import write_json
from console.machine import machine
from rich.console import Console
from rich.progress import Progress

from fed.base import gpu_kernels, random_base, sources
from fed.base import model as base_model
from fed.base.device import DTYPES
from server_strategy.report.report import git_commit

PARTS = ("train", "cache", "later", "prefix", "generate", "profile")


def parser() -> Parser:
    p = options_of(__doc__)
    p.add_argument("--parts", default=",".join(PARTS), help="which of them (default: %(default)s)")
    p.add_argument("--users", type=numbers, default=[8, 32], metavar="U,…", help="(default: 8,32)")
    p.add_argument("--rows", type=numbers, default=[2, 4, 16], metavar="N,…", help="rows a user (default: 2,4,16)")
    p.add_argument("--timed-users", type=int, default=2, metavar="N", help="of those alone (default: %(default)s)")
    p.add_argument("--repeats", type=int, default=3, metavar="N", help="timed turns of each engine (default: 3)")
    p.add_argument("--layers", type=numbers, default=[10, 16, 22], metavar="L,…", help="edited blocks")
    p.add_argument("--base-model", default=sources.EMBEDDED, help="or random:llama-2-7b, random:tiny, …")
    p.add_argument(
        "--pass-tokens",
        type=int,
        default=PLAN.token_budget,
        metavar="N",
        help="of a shared pass (default: %(default)s)",
    )
    p.add_argument("--dtype", default="auto")
    p.add_argument("--device", default="auto")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return p


@told()
def main() -> int:
    # What is timed, on which base.
    options = parser().parse_args()
    parts, layers, repeats = parts_of(options.parts, PARTS), tuple(options.layers), options.repeats
    load = random_base.load if options.base_model.startswith(random_base.PREFIX) else base_model.load
    base = load(options.base_model, device=options.device, dtype=options.dtype)
    result: dict[str, Any] = {
        "commit": git_commit(),
        "machine": f"{machine(base.device)}, {torch.get_num_threads()} threads",
        "base_model": base.describe(),
        "fused_kernels": gpu_kernels.are_in(base.model),
        "layers": layers,
        "repeats": repeats,
        "train": [],
        "cache": [],
        "later": None,
        "prefix": None,
        "generate": None,
        "profile": None,
        "peak_flops_per_second": None,
    }
    console = Console()
    console.print(f"{base.name}, {base.dtype} on {base.device}; {result['machine']}; commit {result['commit']}")
    # The parts, one after the other.
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=None)

        def tick(case: str) -> Callable[[str], None]:
            return lambda engine: progress.update(bar, description=f"{case}, {engine}", advance=1)

        if "train" in parts:
            for users, rows in product(options.users, options.rows):
                heard = tick(f"training, {users} users × {rows} rows")
                result["train"].append(
                    bench_training(
                        base, users, rows, layers, repeats, options.timed_users, heard, pass_tokens=options.pass_tokens
                    )
                )
        if "cache" in parts:
            for first in (base.skeleton.layers // 3, base.skeleton.layers // 2):
                result["cache"].append(bench_cache(base, first, repeats, 8, 4, tick(f"cache below {first}")))
        if "later" in parts:
            result["later"] = bench_later(base, layers, repeats, 8, 4, tick("later epochs"))
        if "prefix" in parts:
            result["prefix"] = bench_prefix(base, layers, repeats, 8, 4, tick("prefix"))
        if "generate" in parts:
            result["generate"] = bench_generation(base, 32, layers, repeats, tick("generation"))
        if "profile" in parts:
            result["profile"] = bench_profile(base, layers, repeats, 16, tick("profile"))
        if base.device.startswith("cuda"):
            result["peak_flops_per_second"] = peak_speed(base.device, DTYPES[base.dtype])
            add_shares_of_peak(result, flops_per_token(base, layers, TOKENS, LABELS, epochs=2))
    # What came of it, for people and for programs.
    show(result, console)
    if options.json:
        write_json(options.json, result)
    return 0


def add_shares_of_peak(result: dict[str, Any], flops: dict[str, float]) -> None:
    """Into each training case: what share of the device's best speed every engine reached, in products alone."""
    counted_as = {"alone": "ours", "together": "ours"}
    for case in result["train"]:
        case["share_of_peak"] = {
            name: engine["tokens_per_second"] * flops[counted_as.get(name, name)] / result["peak_flops_per_second"]
            for name, engine in case["engines"].items()
        }


if __name__ == "__main__":
    start(main)
