"""`explore.py layers`: which blocks to edit, and how many? Figure 11.

One edited block, each in turn (or every N-th); then 1, 2, 4, … and all blocks, symmetric about the middle. Ranks stay
the app's, so more blocks are more parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from console.command import Parser, at_least_one
from rich.console import Console

from exploration.figures import CHANCE, DIFFERENCE, OTHER, OWN, Drawing, Table, grid, legend, number
from exploration.options import caption, facts
from exploration.sweeps import runs
from fed.statistics.rank_correlation import spearman

SUMMARY = "one edited block for each block, then 1, 2, 4, … all of them (Figure 11)"
LOOKS = {"stage1": (OWN, "s", "--"), "stage1+2": (DIFFERENCE, "o", "-"), "swapped": (OTHER, "^", ":")}


def add_options(p: Parser) -> None:
    runs.add_options(p)
    p.add_argument("--every", type=int, default=1, metavar="N", help="of single blocks, every N-th (default: 1)")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    at_least_one(options, "every")
    base = runs.shapes_of(options)
    if options.layer != -1:
        raise ValueError(f"--layer is what is swept here; leave it out, got {options.layer}")
    singles = [(block,) for block in range(0, base.layers, options.every)]
    counts = [2**power for power in range(base.layers.bit_length()) if 2**power < base.layers]
    spread = [runs.symmetric(count, base.layers) for count in [*counts, base.layers]]
    sets = list(dict.fromkeys([*singles, *spread]))
    cells = [
        runs.cell_of(options, options.task, f"perfit:layers={words_of}", {"layers": words_of, "stage2-layers": "same"})
        for words_of in (",".join(map(str, blocks)) for blocks in sets)
    ]
    outcome_of = dict(zip(sets, runs.outcomes(options, cells, console), strict=True))
    one_each = [outcome_of[blocks] for blocks in singles]
    early, late = _halves(singles, one_each, base.layers)
    losses = np.array([o["arms"]["stage1+2"]["loss_per_token"] for o in one_each])
    return {
        "of": facts(options, base, len(one_each[0]["users"])),
        "singles": [{"layers": blocks, **outcome_of[blocks]} for blocks in singles],
        "sets": [{"layers": blocks, **outcome_of[blocks]} for blocks in spread],
        "metric": runs.main_metric(options.task),
        "earlier_minus_later": runs.paired(early, late) if early and late else None,
        "loss_against_block": spearman(np.array([float(b[0]) for b in singles]), losses, seed=options.seed),
    }


def _halves(singles: Sequence[tuple[int, ...]], outcomes: Sequence[Any], blocks: int) -> tuple[list[Any], list[Any]]:
    """The outcomes of single blocks in the lower half and in the upper one."""
    lower = [o for (block,), o in zip(singles, outcomes, strict=True) if block < blocks / 2]
    return lower, [o for (block,), o in zip(singles, outcomes, strict=True) if block >= blocks / 2]


def words(result: dict[str, Any]) -> list[str]:
    gap, best = result["earlier_minus_later"], min(result["singles"], key=_loss)
    said = [f"the best single block is {best['layers'][0]}, loss per token {number(_loss(best), 3)}"]
    if gap and gap["low"] is not None:
        told = (
            "earlier is better" if gap["high"] < 0 else "later is better" if gap["low"] > 0 else "neither is told apart"
        )
        said.append(
            f"lower half minus upper half: {number(gap['difference'], 3)} [{number(gap['low'], 3)}, "
            f"{number(gap['high'], 3)}] over {gap['users']} users: {told}"
        )
    if result["loss_against_block"]:
        rho, p = result["loss_against_block"]
        said.append(f"loss against the block's number: ρ = {number(rho)}, p = {p:.2g} over blocks (one run each)")
    most = min(result["sets"], key=_loss)
    said.append(f"of 1, 2, 4, … blocks the best are {len(most['layers'])}: {number(_loss(most), 3)}")
    return said


def _loss(row: dict[str, Any], arm: str = "stage1+2") -> float:
    return float(row["arms"][arm]["loss_per_token"])


def tables(result: dict[str, Any]) -> list[Table]:
    metric = result["metric"]
    rows = [
        [
            ",".join(map(str, row["layers"])) if len(row["layers"]) < 9 else f"all {len(row['layers'])}",
            *(number(row["arms"][arm]["loss_per_token"], 3) for arm in LOOKS),
            *(number(row["arms"][arm].get(metric), 3) for arm in LOOKS),
            f"{row['percent']:.4f}",
        ]
        for row in [*result["singles"], *result["sets"]]
    ]
    head = ("blocks", *(f"loss, {arm}" for arm in LOOKS), *(f"{metric}, {arm}" for arm in LOOKS), "% of parameters")
    return [Table("Blocks that are edited", head, rows)]


def drawings(result: dict[str, Any]) -> list[Drawing]:
    def paint(rows: Sequence[dict[str, Any]], places: Sequence[float], label: str, logarithmic: bool) -> Any:
        def draw(figure: Any) -> None:
            panels = figure.subplots(2, 1, sharex=True)
            for axes, key in zip(panels, ("loss_per_token", result["metric"]), strict=True):
                for arm, (colour, marker, dash) in LOOKS.items():
                    values = [row["arms"][arm].get(key) for row in rows]
                    axes.plot(places, values, color=colour, marker=marker, linestyle=dash, markersize=4, label=arm)
                axes.axhline(rows[0]["arms"]["base"][key], color=CHANCE, linewidth=0.9, label="base")
                axes.set_ylabel(runs.metric_label(key).replace(" (", "\n("))
                grid(axes)
            if logarithmic:
                panels[1].set_xscale("log", base=2)
                panels[1].set_xticks(places, [str(place) for place in places])
            panels[1].set_xlabel(label)
            legend(figure, 4)

        return draw

    of, singles, sets = caption(result["of"]), result["singles"], result["sets"]
    one = paint(singles, [row["layers"][0] for row in singles], "the edited block", False)
    many = paint(sets, [len(row["layers"]) for row in sets], "edited blocks, symmetric about the middle", True)
    return [
        Drawing("layers-single", f"One edited block\n{of}", 4.8, one),
        Drawing("layers-many", f"More edited blocks\n{of}", 4.8, many),
    ]
