"""The measured half of `compare_comm.py`: every method in a whole run of the Flower app, one after the other.

All methods get the same users, rows, batches and steps on the same frozen base; only the learning rates differ, for
LoRA's and LoReFT's steps are not of one size. Each run's ledger is then set against the analysis, message by message.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells import cell as cells
from simulation import app_run
from simulation.apps import SIMS

from fed.base.skeleton import Skeleton, skeleton
from fed.communication.costs import Cost, of_run
from fed.communication.ledger import DIRECTIONS, PHASES
from fed.communication.wire import WIRE_DTYPES
from fed.settings.settings import Settings

METHODS = ("perfit", "oppu", "lora-p", "lora-c")
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
RATES: dict[str, dict[str, Any]] = {
    "perfit": {"stage1-lr": 0.003, "stage2-lr": 0.001, "average": "svd"},
    "oppu": cells.LORA_RATES,
    "lora-p": cells.LORA_RATES,
    "lora-c": cells.LORA_RATES,
}
HAND_OUT = "hand-out"
ARMS = {"stage1": "after stage 1", "stage1+2": "after stage 2"}


@dataclass(frozen=True)
class Source:
    """Where the users come from: an app of `sims/`, and its `data`."""

    app: str
    data: str


def source_of(folder: Path | None) -> Source:
    """The app for a data folder (LaMP_4's or LaMP_7's, or a parent of one); the synthetic users without one.

    Raises:
        ValueError: the folder holds neither.
    """
    if folder is None:
        return Source("lamp7", "synthetic")
    from fed.lamp.tasks import get_task

    path = folder.expanduser().resolve()
    for app, task in (("lamp4", "LaMP_4"), ("lamp7", "LaMP_7")):
        names = get_task(task).folders
        if path.name in names or any((path / name).is_dir() for name in names):
            return Source(app, str(path))
    raise ValueError(f"data must be a folder of LaMP_4 or LaMP_7, or the parent of one, got {str(folder)!r}")


def settings_of(method: str, source: Source, output: Path, wire_dtype: str, seed: int) -> dict[str, Any]:
    """The run-config keys of one method's run."""
    if wire_dtype not in WIRE_DTYPES:
        raise ValueError(f"wire-dtype must be one of {', '.join(WIRE_DTYPES)}, got {wire_dtype!r}")
    run = {"method": method, "data": source.data, "output-dir": str(output), "wire-dtype": wire_dtype, "seed": seed}
    return {**PLAN, **RATES[method], **run}


def run(method: str, source: Source, output: Path, wire_dtype: str, seed: int, say: Callable[[str], None]) -> Path:
    """One method's whole run by `sims/run.py`; `say` hears its lines as they come. Returns the path of report.json.

    Raises:
        ValueError: the run failed, with its own error line.
    """
    return app_run.run(source.app, settings_of(method, source, output, wire_dtype, seed), say)


def analytic(report: dict[str, Any], base: Skeleton) -> tuple[Cost, dict[tuple[str, str], int]]:
    """(what the method's tensors weigh, payload of one message by phase and direction), from shapes alone.

    The hand-out gives the final collective tensors to every user, and is answered without an array.
    """
    file = SIMS / report["app"] / "pyproject.toml"
    defaults = tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    settings = Settings.parse({**defaults, **report["settings"]})
    layers, ranks = settings.edited_layers(base.layers), (settings.stage1_rank, settings.stage2_rank)
    weight = of_run(report["method"], base, layers=layers, ranks=ranks)
    one = weight.federated_bytes(settings.wire_dtype)
    payloads = {(phase, way): 0 for phase in ("stage1", HAND_OUT, *PHASES[1:]) for way in DIRECTIONS}
    return weight, payloads | {("stage1", "down"): one, ("stage1", "up"): one, (HAND_OUT, "down"): one}


def measured(path: Path) -> dict[str, Any]:
    """One finished run against the analysis.

    Returns:
        method, engine, parameters, messages (per phase and direction: count, measured and analytic payload of one
        message, whether all messages agree, record and wire overhead), totals, arms, seconds, settings.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    weight, expected = analytic(report, skeleton(report["settings"]["base-model"]))
    with (path.parent / "bytes.csv").open(encoding="utf-8") as file:
        entries = list(csv.DictReader(file))
    for entry in entries:
        if entry["phase"] == "stage1" and int(entry["round"]) > report["settings"]["rounds"]:
            entry["phase"] = HAND_OUT
    messages = []
    for (phase, way), one in expected.items():
        own = [e for e in entries if (e["phase"], e["direction"]) == (phase, way)]
        payloads = {int(e["payload"]) for e in own}
        sums = {size: sum(int(e[size]) for e in own) for size in ("payload", "record", "wire")}
        messages.append(
            {
                "method": report["method"],
                "phase": phase,
                "direction": way,
                "messages": len(own),
                "measured_payload": max(payloads, default=0),
                "analytic_payload": one,
                "equal": payloads <= {one},
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
    for one in runs:
        up_and_down = one["total_payload"]
        for arm, words in ARMS.items():
            if one["arms"][arm] is not None:
                rows.append(_row(one["method"], words, up_and_down, one["private_parameters"], one["arms"][arm]))
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
