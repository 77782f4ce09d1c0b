"""What `bench_engine.py` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table


def show(result: dict[str, Any], console: Console) -> None:
    """What a person reads of each part."""
    if result["train"]:
        console.print(training_table(result["train"]))
    for case in result["cache"]:
        console.print(
            f"activation cache, first edited block {case['first_layer']} of {case['layers']}: later epochs "
            f"{case['later_epochs_ratio']:.2f} × as fast"
        )
    if case := result["later"]:
        collective, private = (", ".join(map(str, case[key])) for key in ("collective_layers", "private_layers"))
        counted, over = case["block_passes_a_row"], case["later_over"]
        console.print(
            f"stage 2 at blocks {private} over collective edits at {collective}: later epochs {over['same']:.2f} × as "
            f"fast as with private edits at all of these, {over['nothing kept']:.2f} × as with no states kept; block "
            f"passes of a row {counted['later']:.0f}, {counted['same']:.0f}, {counted['nothing kept']:.0f}; "
            f"losses within {case['worst_difference']:.1e}"
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
            f"{case['equal_texts']} equal texts; in buffers of full length{', replayed' * case['replayed']}: "
            f"{case['static_over_mixed']:.2f} × mixed, {case['equal_static_texts']} equal"
        )
    if case := result["profile"]:
        console.print(profile_lines(case))
    if peak := result["peak_flops_per_second"]:
        console.print(f"a large product reaches {peak / 1e12:.1f} TFLOP/s")
        for case in result["train"]:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in case["share_of_peak"].items())
            console.print(f"{case['users']} × {case['rows']}: of this in products: {shares}")


def training_table(cases: Sequence[dict[str, Any]]) -> Table:
    """Tokens/s of each engine, how many times pyreft's, and its peak memory; a row a case."""
    table = Table(title="Stage-2 training, tokens/s (× pyreft) [peak MB]", title_justify="left")
    engines = ("pyreft", "peft LoRA", "ours, alone", "ours, together")
    for name in ("users × rows", *engines, "alone / peft", "worst Δ loss"):
        table.add_column(name, justify="right")
    for case in cases:
        cells = []
        for name in ("pyreft", "peft", "alone", "together"):
            engine, base_rate = case["engines"][name], case["engines"]["pyreft"]["tokens_per_second"]
            times = {"alone": case["alone_over_pyreft"], "together": case["together_over_pyreft"]}
            over = times.get(name, engine["tokens_per_second"] / base_rate)
            cells.append(f"{engine['tokens_per_second']:.0f} ({over:.2f}) [{engine['peak_bytes'] / 1e6:.0f}]")
        worst = f"{case['together_against_alone_worst']:.1e}; pyreft {case['pyreft_worst_difference']:.1%}"
        table.add_row(f"{case['users']} × {case['rows']}", *cells, f"{case['alone_over_peft']:.2f}", worst)
    return table


def profile_lines(case: dict[str, Any]) -> str:
    """The shares of our step, and what its products alone would allow."""
    parts = ", ".join(f"{name} {share:.0%}" for name, share in case["shares"].items())
    counted = ", ".join(f"{name} {count / 1e6:.0f}" for name, count in case["flops_per_token"].items())
    reached = case["reached_flops_per_second"]
    return (
        f"our step, one user of {case['rows']} rows: {parts}\n"
        f"MFLOP a token in products: {counted}; GFLOP/s: ours {reached['ours'] / 1e9:.1f}, pyreft "
        f"{reached['pyreft'] / 1e9:.1f}, the bare products {case['product_flops_per_second'] / 1e9:.1f}\n"
        f"ours {case['ours_over_pyreft']:.2f} × pyreft; the products alone would allow "
        f"{case['largest_ratio_to_pyreft']:.2f} × (by count at one speed {case['largest_ratio_by_count']:.2f} ×)"
    )
