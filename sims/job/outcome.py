"""Turns of the job: medians, ratios to the product's, and whether both ways end with the same losses."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from fed.answering.evaluation import ARMS

MEASURES = ("seconds", "processor_seconds", "peak_bytes")
SAME = 0.03  # the losses of two ways of one method may differ by so much, relative


def summary(turns: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """way -> the median of each measure, and under `times_…` the median over turns of its quotient by the product's."""
    ways = list(dict.fromkeys(turn["way"] for turn in turns))
    rows: dict[str, dict[str, float]] = {}
    for way in ways:
        rows[way] = {}
        for measure in MEASURES:
            values = {turn["turn"]: turn[measure] for turn in turns if turn["way"] == way}
            ours = {turn["turn"]: turn[measure] for turn in turns if turn["way"] == ways[0]}
            rows[way][measure] = statistics.median(values.values())
            rows[way][f"times_{measure}"] = statistics.median(values[n] / ours[n] for n in values.keys() & ours.keys())
    return rows


def losses(turns: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """way -> arm -> loss per token, of the first turn; later ones repeat it."""
    first: dict[str, dict[str, float]] = {}
    for turn in turns:
        scores = {arm: turn["arms"][arm]["loss_per_token"] for arm in ARMS if turn["arms"].get(arm)}
        first.setdefault(turn["way"], scores)
    return first


def apart(by_way: Mapping[str, Mapping[str, float]], one: str, other: str) -> float | None:
    """The largest relative difference of two ways' losses over arms; None where one of them is missing.

    Of all but `swapped`: users are swapped with those of their node, and the plain way has a node for each user.
    """
    if one not in by_way or other not in by_way:
        return None
    return max(abs(by_way[other][arm] / loss - 1) for arm, loss in by_way[one].items() if arm != "swapped")


def tables(turns: Sequence[Mapping[str, Any]]) -> list[Table]:
    """What each way took, and the losses that it ended with."""
    taken = Table(title="The whole job, medians over turns (in brackets: times the product's)", title_justify="left")
    for head in ("way", "wall time", "processor time", "peak memory"):
        taken.add_column(head, justify="left" if head == "way" else "right")
    for way, row in summary(turns).items():
        cells = [f"{row['seconds']:.0f} s", f"{row['processor_seconds']:.0f} s", f"{row['peak_bytes'] / 1e9:.2f} GB"]
        times = [row[f"times_{measure}"] for measure in MEASURES]
        taken.add_row(way, *(f"{cell} ({factor:.2f} ×)" for cell, factor in zip(cells, times, strict=True)))
    ended = Table(title="Loss per token of the arms", title_justify="left")
    ended.add_column("way")
    for arm in ARMS:
        ended.add_column(arm, justify="right")
    for way, by_arm in losses(turns).items():
        ended.add_row(way, *(f"{by_arm[arm]:.4f}" if arm in by_arm else "" for arm in ARMS))
    return [taken, ended]
