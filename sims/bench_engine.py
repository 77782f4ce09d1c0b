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
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fed.base import sources

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from engine_cases import (
    LABELS,
    TOKENS,
    bench_cache,
    bench_generation,
    bench_prefix,
    bench_profile,
    bench_training,
)
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from step_profile import flops_per_token, peak_speed

from fed.base import model as base_model
from fed.base import random_base
from fed.base.device import DTYPES

PARTS = ("train", "cache", "prefix", "generate", "profile")


def show(result: dict[str, Any], console: Console) -> None:
    """The tables that a person reads."""
    if result["train"]:
        table = Table(title="Stage-2 training, tokens/s (× pyreft) [peak MB]", title_justify="left")
        for name in (
            "users × rows",
            "pyreft",
            "peft LoRA",
            "ours, alone",
            "ours, together",
            "alone / peft",
            "worst Δ loss",
        ):
            table.add_column(name, justify="right")
        for case in result["train"]:
            cells = []
            for name in ("pyreft", "peft", "alone", "together"):
                one, base_rate = case["engines"][name], case["engines"]["pyreft"]["tokens_per_second"]
                times = {"alone": case["alone_over_pyreft"], "together": case["together_over_pyreft"]}
                over = times.get(name, one["tokens_per_second"] / base_rate)
                cells.append(f"{one['tokens_per_second']:.0f} ({over:.2f}) [{one['peak_bytes'] / 1e6:.0f}]")
            worst = f"{case['together_against_alone_worst']:.1e}; pyreft {case['pyreft_worst_difference']:.1%}"
            table.add_row(f"{case['users']} × {case['rows']}", *cells, f"{case['alone_over_peft']:.2f}", worst)
        console.print(table)
    for case in result["cache"]:
        console.print(
            f"activation cache, first edited block {case['first_layer']} of {case['layers']}: later epochs "
            f"{case['later_epochs_ratio']:.2f} × as fast"
        )
    if case := result["prefix"]:
        console.print(
            f"edits at {case['positions']}, {case['prefix_tokens']:.0f} of {case['tokens']} tokens read once: "
            f"{case['read_once_over_computed']:.2f} × as fast, losses within {case['worst_difference']:.1e}"
        )
    if case := result["generate"]:
        fast, slow = case["engines"]["mixed"], case["engines"]["one by one"]
        console.print(
            f"generation of {case['rows']} rows, one edit each: mixed {fast['tokens_per_second']:.0f} tokens/s, "
            f"one by one {slow['tokens_per_second']:.0f}: {case['mixed_over_one_by_one']:.2f} ×, "
            f"{case['equal_texts']} equal texts"
        )

    if case := result["profile"]:
        parts = ", ".join(f"{name} {share:.0%}" for name, share in case["shares"].items())
        flops, reached = case["flops_per_token"], case["reached_flops_per_second"]
        counted = ", ".join(f"{name} {count / 1e6:.0f}" for name, count in flops.items())
        console.print(
            f"our step, one user of {case['rows']} rows: {parts}\n"
            f"MFLOP a token in products: {counted}; GFLOP/s: ours {reached['ours'] / 1e9:.1f}, pyreft "
            f"{reached['pyreft'] / 1e9:.1f}, the bare products {case['product_flops_per_second'] / 1e9:.1f}\n"
            f"ours {case['ours_over_pyreft']:.2f} × pyreft; the products alone would allow "
            f"{case['largest_ratio_to_pyreft']:.2f} × (by count at one speed {case['largest_ratio_by_count']:.2f} ×)"
        )
    if result["peak_flops_per_second"]:
        peak = result["peak_flops_per_second"]
        console.print(f"a large product reaches {peak / 1e12:.1f} TFLOP/s")
        for case in result["train"]:
            of_peak = ", ".join(f"{name} {share:.1%}" for name, share in case["share_of_peak"].items())
            console.print(f"{case['users']} × {case['rows']}: of this in products: {of_peak}")


def machine(device: str = "cpu") -> str:
    """The GPU or the processor, the threads and torch's version, in words."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        cpu = platform.processor()
    return f"{cpu}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


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
        "machine": machine(base.device),
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
