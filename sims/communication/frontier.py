"""The frontier of uplink bytes against quality, of `compare_comm.py --frontier`: which levers save bytes, and what for.

Levers: the wire's dtype, entropy coding, a frozen R that is never sent, and the rank; edited layers and rounds multiply
bytes as they stand, and positions have no bytes. First all of them are counted, from shapes alone; then those on the
frontier are run, on the same users, rows, draws and steps, beside OPPU and PerFit in float32.
"""

from __future__ import annotations

import csv
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cells.cell import LORA_RATES, Cell
from console.files import Rows
from simulation.apps import app_of, settings

from communication.figures import byte_axis
from communication.measured import Source
from fed import methods
from fed.base.skeleton import Skeleton
from fed.communication.costs import oppu
from fed.statistics import holm, paired_t
from server_strategy.report.svg import COLOURS, FAINT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Small enough for a minute a run; three rounds, so that what rounding left out comes back.
PLAN: dict[str, Any] = {
    "stage1-users": 6,
    "stage2-users": 12,
    "rounds": 3,
    "fraction": 1.0,
    "local-epochs": 1,
    "stage2-epochs": 1,
    "batch-size": 2,
    "max-items": 8,
    "max-queries": 3,
    "max-new-tokens": 0,
    "layers": "10,16,22",
    "stage1-rank": 8,
    "average": "svd",
}
OPPU, WIDE = "oppu, float32", "perfit, float32"
RANKS, DTYPES = (8, 4, 2), ("float32", "bfloat16", "int8", "int4")
DEFLATED = {"wire-coding": "deflate"}
FROZEN = {"average": "frozen-r"}
LEVERS: dict[str, dict[str, Any]] = {
    OPPU: {"method": "oppu", **LORA_RATES},
    WIDE: {},
    "int8, deflated": {"wire-dtype": "int8", **DEFLATED},
    "int4, deflated": {"wire-dtype": "int4", **DEFLATED},
    "frozen R, float32": FROZEN,
    "frozen R, rank 2, float32": {**FROZEN, "stage1-rank": 2},
    "frozen R, int4, deflated": {"wire-dtype": "int4", **FROZEN, **DEFLATED},
}
TIMES, WORSE = 100, 1.0  # the goal: so many times fewer bytes than OPPU's float32, at most so many percent worse
ARM = "stage1+2"


def counted(base: Skeleton) -> list[dict[str, Any]]:
    """Bytes of one user's message up by every lever, before entropy coding, and how many times fewer than OPPU's."""
    reference = oppu(base).federated_bytes("float32")
    # Which blocks are edited changes no byte: the first so many, which every base has.
    layers = ",".join(str(block) for block in range(len(str(PLAN["layers"]).split(","))))
    rows = []
    for frozen in (False, True):
        for rank in RANKS:
            config = {"method": "perfit", "layers": layers, "stage2-layers": "same", "stage1-rank": rank}
            run = settings(app_of("LaMP_7"), config | {"average": "frozen-r" if frozen else "svd"})
            weight = methods.make(run, base).cost
            for dtype in DTYPES:
                size = weight.federated_bytes(dtype)
                rows.append(
                    {"frozen_r": frozen, "rank": rank, "dtype": dtype, "bytes": size, "times": reference / size}
                )
    return rows


def cells_of(source: Source, *, seed: int, changes: Mapping[str, Any]) -> list[Cell]:
    """One cell a lever, with these changes."""
    shared = {**PLAN, "data": source.data, "method": "perfit", **changes}
    return [Cell(source.task, label, seed, {**shared, "seed": seed, **lever}) for label, lever in LEVERS.items()]


@dataclass(frozen=True)
class Finished:
    """A lever's run: its report, and where its bytes.csv is."""

    report: Mapping[str, Any]
    entries: Path


def rows_of(runs: Mapping[str, Finished]) -> list[dict[str, Any]]:
    """One row a lever: its bytes, times fewer than OPPU's float32, and its loss after stage 2 beside both references.

    A difference is one of users' losses per token, in percent of the reference's mean, with the 95 % paired t interval
    over users; p is corrected (Holm) over the levers. Bytes are the mean of a user's message up, all rounds.
    """
    sizes = {label: _up(run.entries) for label, run in runs.items()}
    losses = {label: _losses(run.report) for label, run in runs.items()}
    rows = []
    for label, run in runs.items():
        row: dict[str, Any] = {
            "lever": label,
            **{f"{size}_up": sizes[label][size] for size in ("payload", "record", "wire")},
            **{f"{size}_times": sizes[OPPU][size] / sizes[label][size] for size in ("payload", "wire")},
            "down_in_all": run.report["bytes"]["stage1"]["down"]["payload"],
            "up_in_all": run.report["bytes"]["stage1"]["up"]["payload"],
            "loss_per_token": run.report["arms"][ARM]["loss_per_token"],
            "stage1_loss_per_token": run.report["arms"]["stage1"]["loss_per_token"],
            "users": len(losses[label]),
        }
        for name, reference in (("wide", WIDE), ("oppu", OPPU)):
            row |= {f"{name}_{key}": value for key, value in _gap(losses[label], losses[reference]).items()}
        row["met"] = row["payload_times"] >= TIMES and row["wide_percent"] <= WORSE
        rows.append(row)
    for name, reference in (("wide", WIDE), ("oppu", OPPU)):
        others = [row for row in rows if row["lever"] != reference]
        for row, p in zip(others, holm.corrected([row[f"{name}_p"] for row in others]), strict=True):
            row[f"{name}_p"] = p
    return rows


def _up(entries: Path) -> dict[str, float]:
    """Mean sizes of the edits that were sent up."""
    with entries.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if (row["phase"], row["direction"]) == ("stage1", "up")]
    sent = [row for row in rows if int(row["payload"])]  # not the answers to the hand-out
    return {size: statistics.fmean(int(row[size]) for row in sent) for size in ("payload", "record", "wire")}


def _losses(report: Mapping[str, Any]) -> dict[str, float]:
    return {user["user_id"]: user["arms"][ARM]["loss_per_token"] for user in report["users"] if user["arms"][ARM]}


def _gap(own: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, Any]:
    """{"percent", "low", "high", "p"} of own minus reference over the users of both."""
    users = sorted(own.keys() & reference.keys())
    mean = statistics.fmean(reference[user] for user in users)
    differences = np.array([100 * (own[user] - reference[user]) / mean for user in users])
    if len(users) < 2 or not differences.any():
        return {"percent": float(differences.mean()), "low": None, "high": None, "p": None}
    low, high = paired_t.interval(differences)
    p = paired_t.p_value(differences)
    return {"percent": float(differences.mean()), "low": float(low), "high": float(high), "p": p}


def drawing(rows: Rows) -> Callable[[Figure], None]:
    """Percent of loss against PerFit's float32 over bytes up; in the shaded corner the goal is met."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        goal = next(row["payload_up"] for row in rows if row["lever"] == OPPU) / TIMES
        smallest, largest = (pick(row["payload_up"] for row in rows) for pick in (min, max))
        byte_axis(axes, smallest, largest)
        ends = [value for row in rows for value in (row["wide_low"], row["wide_high"]) if value is not None]
        bottom, top = min(*ends, -WORSE) - 1, max(*ends, WORSE) + 1
        axes.set_ylim(bottom, top)
        axes.fill_between(
            [axes.get_xlim()[0], goal], bottom, WORSE, color=COLOURS["stage1"][0], alpha=0.25, linewidth=0
        )
        axes.axhline(0, color=FAINT, linewidth=1, linestyle=":")
        words = f"the goal: {TIMES} × fewer, {WORSE:g} % worse at most"
        axes.annotate(words, (axes.get_xlim()[0], bottom), (5, 6), textcoords="offset points", fontsize=8, color=FAINT)
        for place, row in enumerate(rows):
            x, y = row["payload_up"], row["wide_percent"]
            if row["wide_low"] is not None:
                axes.plot([x, x], [row["wide_low"], row["wide_high"]], color=FAINT, linewidth=1.5, zorder=1)
            axes.plot(x, y, "o" if row["met"] else "s", color="#0072b2" if row["met"] else "#e69f00", markersize=8)
            axes.annotate(
                f"{row['lever']}\n{row['payload_times']:.0f} ×",
                (x, y),
                (7, 9 if place % 2 else -22),
                textcoords="offset points",
                fontsize=8,
            )
        axes.set_xlabel("payload of one user's message up in a round of stage 1 (logarithmic)")
        axes.set_ylabel("loss per token after stage 2,\n% above perfit in float32 (lower is better)")

    return draw


def shown(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The measured rows as texts, for a table: lever, bytes, times, losses and what they are beside the references."""
    return [
        [
            row["lever"],
            f"{row['payload_up']:,.0f} B",
            f"{row['payload_times']:.1f} ×",
            f"{row['wire_up']:,.0f} B",
            f"{row['wire_times']:.1f} ×",
            f"{row['loss_per_token']:.4f}",
            _percent(row, "wide"),
            _percent(row, "oppu"),
            "yes" if row["met"] else "no",
        ]
        for row in rows
    ]


def _percent(row: Mapping[str, Any], name: str) -> str:
    if row[f"{name}_low"] is None:
        return f"{row[f'{name}_percent']:+.2f}"
    p = row[f"{name}_p"]
    return (
        f"{row[f'{name}_percent']:+.2f} [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
        f"{'' if p is None else f', p {p:.3f}'}"
    )
