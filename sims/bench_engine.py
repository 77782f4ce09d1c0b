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
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from bench_opponents import lora_alone, pyreft_alone
from in_turn import Engine, Timed, in_turn, now, ratio
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from step_profile import flops_per_token, peak_speed, product_speed, shares

from fed import base_model, random_base, training
from fed.activations import CACHE
from fed.base_model import DTYPES, BaseModel
from fed.batching import Row, generator, tokenize
from fed.generation import Decoding, EditedRow, generate
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.loreft import EditBank, EditShape
from fed.positions import Positions
from fed.training import TrainSettings

PARTS = ("train", "cache", "generate", "profile")
TOKENS, LABELS = 48, 20
EVERYWHERE = Positions.parse("all")
PLAN = TrainSettings(epochs=1, batch_size=16, rate=0.001, weight_decay=0.0, token_budget=16 * TOKENS)
CACHE_BYTES = 512 << 20  # as the apps' activation-cache


def some_rows(base: BaseModel, count: int) -> list[Row]:
    """`count` rows of exactly 28 prompt and 20 completion tokens, EOS included, from the synthetic users' texts."""
    task = get_task("LaMP_7")
    corpus = open_corpus("synthetic", task, seed=0)
    tokens: list[int] = []
    for user in corpus.cohorts["others"]:
        for row in tokenize([task.query_pair(q) for q in corpus.user(user).queries], base.tokenizer, 256):
            tokens += [*row.prompt, *row.completion]
    rows = []
    for i in range(count):
        start = i * (TOKENS - 1) % (len(tokens) - TOKENS)
        own = tokens[start : start + TOKENS - 1]
        cut = TOKENS - LABELS
        rows.append(Row(tuple(own[:cut]), (*own[cut:], int(base.tokenizer.eos_token_id))))
    return rows


def bench_training(
    base: BaseModel,
    users: int,
    rows: int,
    layers: tuple[int, ...],
    repeats: int,
    timed: int,
    tick: Callable[[str], None],
) -> dict[str, Any]:
    """Stage 2 for `users` users of `rows` rows each, two epochs: pyreft, PEFT, ours alone, ours together.

    Ours with the activation cache, as the apps have it; every turn begins with an empty one.
    """
    shape = EditShape(layers, 4, base.skeleton.hidden_size)
    pool = some_rows(base, users * rows)
    own = [pool[u * rows : (u + 1) * rows] for u in range(users)]
    few = range(min(timed, users))
    plan = replace(PLAN, batch_size=min(16, rows), epochs=2, activation_cache=CACHE_BYTES)

    def draws(who: Sequence[int]) -> list[torch.Generator]:
        return [generator(0, "bench", u) for u in who]

    def edits(who: Sequence[int]) -> EditBank:
        return EditBank.identity(shape, [generator(0, "edit", u) for u in who]).to(device=base.device)

    def ours(groups: Sequence[Sequence[int]]) -> tuple[int, list[list[float]]]:
        losses = []
        CACHE.clear()
        for who in groups:
            bank = edits(who)
            losses += training.train(base, bank, [own[u] for u in who], draws(who), plan, EVERYWHERE)
        return plan.epochs * rows * TOKENS * len(losses), [result.step_losses for result in losses]

    def alone(fit: Callable[[int], list[float]]) -> tuple[int, list[list[float]]]:
        return plan.epochs * rows * TOKENS * len(few), [fit(u) for u in few]

    engines: dict[str, Engine] = {
        "pyreft": lambda: alone(lambda u: pyreft_alone(base, edits([u]), own[u], plan, draws([u])[0])),
        "peft": lambda: alone(lambda u: lora_alone(base, own[u], plan, draws([u])[0])),
        "alone": lambda: ours([[u] for u in few]),
        "together": lambda: ours([range(users)]),
    }
    found = in_turn(engines, repeats, tick, base.device)
    fair = _compare_losses(found)
    return {
        "users": users,
        "rows": rows,
        "timed_users": len(few),
        "engines": {name: one.as_json() for name, one in found.items()},
        "users_per_minute": {
            n: 60 / (plan.epochs * rows * TOKENS) * statistics.median(t.rates) for n, t in found.items()
        },
        "alone_over_pyreft": ratio(found["alone"], found["pyreft"]),
        "alone_over_peft": ratio(found["alone"], found["peft"]),
        "together_over_pyreft": ratio(found["together"], found["pyreft"]),
        "together_over_alone": ratio(found["together"], found["alone"]),
        **fair,
    }


def _compare_losses(found: dict[str, Timed]) -> dict[str, float]:
    """That nobody wins by computing something else: relative differences of the timed users' step losses."""

    def worst(a: str, b: str, steps: slice) -> float:
        pairs = zip(found[a].losses or [], found[b].losses or [], strict=False)
        return max(abs(x / y - 1) for own, other in pairs for x, y in zip(own[steps], other[steps], strict=True))

    return {
        "together_against_alone_worst": worst("alone", "together", slice(None)),
        "pyreft_first_step_difference": worst("alone", "pyreft", slice(1)),
        "pyreft_worst_difference": worst("alone", "pyreft", slice(None)),
    }


def bench_cache(
    base: BaseModel, first: int, repeats: int, users: int, rows: int, tick: Callable[[str], None]
) -> dict[str, Any]:
    """Second and later epochs with the activation cache and without, all users in one batch."""
    blocks = base.skeleton.layers
    shape = EditShape((first, (first + blocks) // 2), 4, base.skeleton.hidden_size)
    pool = some_rows(base, users * rows)
    own = [pool[u * rows : (u + 1) * rows] for u in range(users)]
    later: dict[str, list[float]] = {}

    def run(name: str, limit: int) -> None:
        CACHE.clear()
        plan = replace(PLAN, batch_size=rows, epochs=3, activation_cache=limit)
        bank = EditBank.identity(shape, [generator(0, "edit", u) for u in range(users)]).to(device=base.device)
        ends: list[float] = []
        draws = [generator(0, "bench", u) for u in range(users)]
        training.train(base, bank, own, draws, plan, EVERYWHERE, on_step=lambda *_: ends.append(now(base.device)))
        later.setdefault(name, []).append((ends[-1] - ends[0]) / (len(ends) - 1))

    for repeat in range(repeats + 1):
        for name, limit in (("without", 0), ("with", CACHE_BYTES)):
            tick(name)
            run(name, limit)
            if not repeat:
                later[name].clear()
    return {
        "first_layer": first,
        "layers": blocks,
        "users": users,
        "rows": rows,
        "seconds_an_epoch": {name: statistics.median(times) for name, times in later.items()},
        "later_epochs_ratio": statistics.median(a / b for a, b in zip(later["without"], later["with"], strict=True)),
    }


def bench_generation(
    base: BaseModel, users: int, layers: tuple[int, ...], repeats: int, tick: Callable[[str], None]
) -> dict[str, Any]:
    """`users` users' rows, each with its own edit, continued by 16 tokens: in one batch, and one after another."""
    shape = EditShape(layers, 4, base.skeleton.hidden_size)
    bank = EditBank.identity(shape, [generator(0, "edit", u) for u in range(users)]).to(device=base.device)
    for u in range(users):  # edits that change something, another for each user
        bank.W[u] += 0.1 * torch.randn(bank.W[u].shape, generator=generator(0, "moved", u)).to(bank.W)
    rows = some_rows(base, users)
    decoding = Decoding(max_new_tokens=16)
    texts: dict[str, list[str]] = {}

    def run(name: str, groups: Sequence[Sequence[int]]) -> tuple[int, None]:
        texts[name] = []
        for who in groups:
            asked = [EditedRow(rows[u], personal=u) for u in who]
            texts[name] += generate(base, asked, decoding, EVERYWHERE, personal=bank, token_budget=users * 64)
        return 16 * users, None

    engines: dict[str, Engine] = {
        "one by one": lambda: run("one by one", [[u] for u in range(users)]),
        "mixed": lambda: run("mixed", [range(users)]),
    }
    found = in_turn(engines, repeats, tick, base.device)
    return {
        "rows": users,
        "engines": {name: one.as_json() for name, one in found.items()},
        "mixed_over_one_by_one": ratio(found["mixed"], found["one by one"]),
        "equal_texts": sum(a == b for a, b in zip(texts["mixed"], texts["one by one"], strict=True)),
    }


def bench_profile(
    base: BaseModel, layers: tuple[int, ...], repeats: int, rows: int, tick: Callable[[str], None]
) -> dict[str, Any]:
    """One user's stage 2 of `rows` rows, two epochs: the shares of our step, and what its products alone would take."""
    shape = EditShape(layers, 4, base.skeleton.hidden_size)
    pool = some_rows(base, rows)
    plan = replace(PLAN, batch_size=min(16, rows), epochs=2, activation_cache=CACHE_BYTES)
    tokens = plan.epochs * rows * TOKENS

    def bank() -> EditBank:
        return EditBank.identity(shape, [generator(0, "edit", 0)]).to(device=base.device)

    def ours() -> tuple[int, list[list[float]]]:
        CACHE.clear()
        results = training.train(base, bank(), [pool], [generator(0, "bench", 0)], plan, EVERYWHERE)
        return tokens, [result.step_losses for result in results]

    def pyreft() -> tuple[int, list[list[float]]]:
        return tokens, [pyreft_alone(base, bank(), pool, plan, generator(0, "bench", 0))]

    found = in_turn({"pyreft": pyreft, "ours": ours}, repeats, tick, base.device)
    tick("profile")
    spent = shares(ours, base.device)
    tick("bare products")
    flops = flops_per_token(base, layers, TOKENS, LABELS, plan.epochs)
    bare = product_speed(base, plan.batch_size * TOKENS)
    rates = {name: statistics.median(one.rates) for name, one in found.items()}
    return {
        "rows": rows,
        "shares": spent,
        "flops_per_token": flops,
        "tokens_per_second": rates,
        "product_flops_per_second": bare,
        "reached_flops_per_second": {name: flops[name] * rate for name, rate in rates.items()},
        "ours_over_pyreft": ratio(found["ours"], found["pyreft"]),
        "largest_ratio_to_pyreft": bare / flops["ours"] / rates["pyreft"],
        "largest_ratio_by_count": flops["pyreft"] / flops["ours"],
    }


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
    p.add_argument("--base-model", default=base_model.EMBEDDED, help="or random:llama-2-7b, random:tiny, …")
    p.add_argument("--dtype", default="auto")
    p.add_argument("--device", default="auto")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    options = p.parse_args()
    console = Console()
    try:
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
