"""The measured half of `compare_comm.py`: every method is a cell, a whole run of the Flower app.

All methods get the same users, rows, batches and steps on the same frozen base; only the learning rates differ, for
LoRA's and LoReFT's steps are not of one size. Each run's ledger is then set against the analysis, message by message.
"""

from __future__ import annotations

import csv
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells.cell import LORA_RATES, Cell
from simulation.apps import SIMS, defaults

from fed import methods
from fed.base.skeleton import Skeleton, skeleton
from fed.communication.costs import Cost
from fed.communication.ledger import DIRECTIONS, PHASES
from fed.communication.wire import whole_dtype
from fed.settings.paths import base_source
from fed.settings.settings import Settings

MEASURED = ("perfit", "oppu", "lora-p", "lora-c")
# Small enough for four runs in twelve minutes on two cores; every key of the app's settings can be seen in its report.
PLAN = {
    "stage1-users": 10,
    "stage2-users": 8,
    "rounds": 2,
    "fraction": 0.8,
    "local-epochs": 1,
    "stage2-epochs": 1,
    "batch-size": 2,
    "max-items": 12,
    "max-queries": 3,
    "max-new-tokens": 28,
    "average": "fedavg",
}
# PerFit's rates are its app's; on real tweets, for which that was not made, those of sims/lamp7/real.toml.
REAL_TWEETS = ("stage1-lr", "stage2-lr", "stage2-layers", "stage2-positions")
RATES: dict[str, dict[str, Any]] = {
    "perfit": {"average": "svd"},
    "oppu": LORA_RATES,
    "lora-p": LORA_RATES,
    "lora-c": LORA_RATES,
}
HAND_OUT = "hand-out"
ARMS = {"stage1": "after stage 1", "stage1+2": "after stage 2"}


@dataclass(frozen=True)
class Source:
    """Where the users come from: a task of LaMP, and the setting `data`."""

    task: str
    data: str


def source_of(folder: Path | None) -> Source:
    """The task of a data folder (LaMP_4's or LaMP_7's, or a parent of one); the synthetic users without one.

    Raises:
        ValueError: the folder holds neither.
    """
    if folder is None:
        return Source("LaMP_7", "synthetic")
    from fed.lamp.tasks import get_task

    path = folder.expanduser().resolve()
    for task in ("LaMP_4", "LaMP_7"):
        names = get_task(task).folders
        if path.name in names or any((path / name).is_dir() for name in names):
            return Source(task, str(path))
    raise ValueError(f"data must be a folder of LaMP_4 or LaMP_7, or the parent of one, got {str(folder)!r}")


def cells_of(source: Source, *, wire_dtype: str, seed: int, changes: dict[str, Any]) -> list[Cell]:
    """One cell a method, with these changes."""
    shared = {"data": source.data, "wire-dtype": wire_dtype, "seed": seed, **changes}
    plan = PLAN | _of_real_tweets() if source.task == "LaMP_7" and source.data != "synthetic" else PLAN
    return [Cell(source.task, name, seed, {**plan, **RATES[name], "method": name, **shared}) for name in MEASURED]


def _of_real_tweets() -> dict[str, Any]:
    real = tomllib.loads((SIMS / "lamp7" / "real.toml").read_text(encoding="utf-8"))
    return {key: real[key] for key in REAL_TWEETS}


def analytic(report: dict[str, Any], base: Skeleton) -> tuple[Cost, dict[tuple[str, str], int]]:
    """(what the method's tensors weigh, payload of one message by phase and direction), from shapes alone.

    The hand-out gives the final collective tensors to every user, and is answered without an array.
    """
    settings = Settings.parse({**defaults(SIMS / report["app"]), **report["settings"]}, finished=True)
    weight = methods.make(settings, base).cost
    edit = weight.federated_bytes(settings.wire_dtype)  # on a narrow wire that of a change
    payloads = {(phase, way): 0 for phase in ("stage1", HAND_OUT, *PHASES[1:]) for way in DIRECTIONS}
    return weight, payloads | {("stage1", "down"): edit, ("stage1", "up"): edit, (HAND_OUT, "down"): edit}


def measured(report: dict[str, Any], entries_of: Path) -> dict[str, Any]:
    """One finished run against the analysis.

    Args:
        report: its report.json.
        entries_of: its bytes.csv, a line a message.

    Returns:
        method, engine, parameters, messages (per phase and direction: count, measured and analytic payload of one
        message, whether all messages agree, record and wire overhead), totals, arms, seconds, settings. On a narrow
        wire the largest measured message down is a whole edit, and the analytic one a change.
    """
    # What the shapes say, and what the ledger wrote; the last sending of stage 1 is the hand-out.
    # A narrow wire has whole edits too, for those who have nothing to change.
    weight, expected = analytic(report, skeleton(base_source(report["settings"]["base-model"])))
    whole = weight.federated_bytes(whole_dtype(report["settings"]["wire-dtype"]))
    with entries_of.open(encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    for entry in entries:
        if entry["phase"] == "stage1" and int(entry["round"]) > report["settings"]["rounds"]:
            entry["phase"] = HAND_OUT
    # Phase by phase and way by way: one message's payload, measured and analytic.
    messages = []
    for (phase, way), payload in expected.items():
        sent = [entry for entry in entries if (entry["phase"], entry["direction"]) == (phase, way)]
        payloads = {int(entry["payload"]) for entry in sent}
        sums = {size: sum(int(entry[size]) for entry in sent) for size in ("payload", "record", "wire")}
        messages.append(
            {
                "method": report["method"],
                "phase": phase,
                "direction": way,
                "messages": len(sent),
                "measured_payload": max(payloads, default=0),
                "analytic_payload": payload,
                "equal": payloads <= ({payload, whole} if payload and way == "down" else {payload}),
                "total_payload": sums["payload"],
                "record_overhead": sums["record"] - sums["payload"],
                "wire_overhead": sums["wire"] - sums["payload"],
            }
        )
    return {
        "method": report["method"],
        "engine": report["engine"],
        "federated_parameters": weight.federated_parameters,
        "private_parameters": weight.private_parameters,
        "messages": messages,
        "total_payload": sum(m["total_payload"] for m in messages),
        "total_wire": sum(m["total_payload"] + m["wire_overhead"] for m in messages),
        "arms": report["arms"],
        "seconds": report["seconds"]["total"],
        "report": report,
    }


def quality_against_bytes(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Scenario d: a row per method and stage: what it cost by then, and how good it was (PerFit's figure 9, in bytes).

    Stage 2 sends nothing, so both stages of a run stand at the same bytes; the base stands at none.
    """
    rows = [_row("base", "no training", 0, 0, runs[0]["arms"]["base"])]
    for run in runs:
        up_and_down = run["total_payload"]
        for arm, words in ARMS.items():
            if run["arms"][arm] is not None:
                rows.append(_row(run["method"], words, up_and_down, run["private_parameters"], run["arms"][arm]))
    return rows


def _row(method: str, stage: str, total: int, private: int, scores: dict[str, float]) -> dict[str, Any]:
    return {
        "method": method,
        "stage": stage,
        "total_payload": total,
        "private_parameters": private if stage == "after stage 2" else 0,
        "loss_per_token": scores["loss_per_token"],
        "rougeL": scores.get("rougeL"),
    }
