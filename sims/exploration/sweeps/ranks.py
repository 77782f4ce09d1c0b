"""`explore.py ranks`: collective rank against personal rank, as a heat map. Figure 10."""

from __future__ import annotations

import argparse
from typing import Any

from console.command import Parser, numbers
from rich.console import Console

from exploration.figures import Drawing, Table, number
from exploration.options import caption, facts
from exploration.sweeps import runs

SIDES = ("collective", "personal")
SUMMARY = "loss and metric over collective rank and personal rank (Figure 10)"


def add_options(p: Parser) -> None:
    runs.add_options(p)
    p.add_argument("--ranks", type=numbers, default=[1, 2, 4, 8], metavar="R,…", help="of both (default: 1,2,4,8)")


def run(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    base = runs.shapes_of(options)
    ranks = sorted(set(options.ranks))
    if ranks[0] < 1:
        raise ValueError(f"--ranks must be at least 1, got {ranks[0]}")
    blocks = runs.symmetric(min(3, base.layers), base.layers) if options.layer == -1 else (options.layer,)
    grid = [(collective, personal) for collective in ranks for personal in ranks]
    cells = [
        runs.cell_of(
            options,
            options.task,
            f"perfit:ranks={collective},{personal}",
            {
                "layers": ",".join(map(str, blocks)),
                "stage2-layers": "same",
                "stage1-rank": collective,
                "stage2-rank": personal,
            },
        )
        for collective, personal in grid
    ]
    found = runs.outcomes(options, cells, console)
    of_pair = dict(zip(grid, found, strict=True))
    low, high = ranks[0], ranks[-1]
    return {
        "of": facts(options, base, len(found[0]["users"])) | {"edited": blocks},
        "ranks": ranks,
        "metric": runs.main_metric(options.task),
        "grid": [{"collective": c, "personal": p, **outcome} for (c, p), outcome in of_pair.items()],
        "collective_high_minus_low": runs.paired([of_pair[high, p] for p in ranks], [of_pair[low, p] for p in ranks]),
        "personal_high_minus_low": runs.paired([of_pair[c, high] for c in ranks], [of_pair[c, low] for c in ranks]),
        "swapped_minus_own": {p: _swapped_minus_own([of_pair[c, p] for c in ranks]) for p in ranks},
    }


def _swapped_minus_own(of_rank: list[runs.Outcome]) -> dict[str, Any] | None:
    """How much worse another user's vectors of this personal rank are; None where nobody was tested with another's."""
    if not all("swapped" in outcome["arms"] for outcome in of_rank):
        return None
    return runs.paired(of_rank, of_rank, "swapped", second_arm="stage1+2")


def words(result: dict[str, Any]) -> list[str]:
    best = min(result["grid"], key=lambda row: row["arms"]["stage1+2"]["loss_per_token"])
    said = [
        f"the lowest loss, {number(best['arms']['stage1+2']['loss_per_token'], 3)}, is at collective rank "
        f"{best['collective']} and personal rank {best['personal']}"
    ]
    low, high = result["ranks"][0], result["ranks"][-1]
    gaps = [(f"{what} rank {high} minus rank {low}", result[f"{what}_high_minus_low"]) for what in SIDES]
    gaps += [
        (f"another's vectors minus one's own at personal rank {rank}", gap)
        for rank, gap in result["swapped_minus_own"].items()
    ]
    for what, gap in gaps:
        if gap is None or gap["low"] is None:
            continue
        told = "lower loss" if gap["high"] < 0 else "higher loss" if gap["low"] > 0 else "not told apart"
        said.append(
            f"{what}: {number(gap['difference'], 3)} [{number(gap['low'], 3)}, {number(gap['high'], 3)}] over "
            f"{gap['users']} users: {told}"
        )
    return said


def tables(result: dict[str, Any]) -> list[Table]:
    metric = result["metric"]
    rows = [
        [
            f"{row['collective']} and {row['personal']}",
            *(number(row["arms"][arm]["loss_per_token"], 3) for arm in ("stage1", "stage1+2", "swapped")),
            number(row["arms"]["stage1+2"].get(metric), 3),
            f"{row['percent']:.4f}",
        ]
        for row in result["grid"]
    ]
    head = ("ranks", "loss, stage1", "loss, stage1+2", "loss, swapped", f"{metric}, stage1+2", "% of parameters")
    return [Table("Collective rank and personal rank", head, rows)]


def drawings(result: dict[str, Any]) -> list[Drawing]:
    ranks = result["ranks"]

    def paint(figure: Any) -> None:
        from matplotlib import colormaps

        panels = figure.subplots(2, 1, sharex=True)
        for axes, key in zip(panels, ("loss_per_token", result["metric"]), strict=True):
            value_of = {(r["collective"], r["personal"]): r["arms"]["stage1+2"][key] for r in result["grid"]}
            values = [[value_of[c, p] for p in ranks] for c in ranks]
            low, high = min(value_of.values()), max(value_of.values())
            axes.pcolormesh(range(len(ranks) + 1), range(len(ranks) + 1), values, cmap="viridis", vmin=low, vmax=high)
            for y, row in enumerate(values):
                for x, value in enumerate(row):
                    red, green, blue, _ = colormaps["viridis"]((value - low) / ((high - low) or 1))
                    light = 0.3 * red + 0.6 * green + 0.1 * blue > 0.5
                    axes.text(
                        x + 0.5,
                        y + 0.5,
                        number(value, 3),
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="black" if light else "white",
                    )
            axes.set_yticks([i + 0.5 for i in range(len(ranks))], [str(rank) for rank in ranks])
            axes.set_ylabel("collective rank")
            axes.set_title(runs.metric_label(key), fontsize=9, loc="left")
        panels[1].set_xticks([i + 0.5 for i in range(len(ranks))], [str(rank) for rank in ranks])
        panels[1].set_xlabel("personal rank")

    return [Drawing("ranks", f"Collective and personal rank\n{caption(result['of'])}", 5.4, paint)]
