"""report.json and its companions: what the run did to quality and what it cost in bytes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from fed import strict_json
from fed.answering import ceiling, comparisons
from fed.answering.evaluation import ARMS, arm_scores
from fed.communication.ledger import Ledger
from fed.lamp.synthetic import ceilings
from fed.lamp.tasks import get_task
from fed.methods import Method
from fed.number_row import NumberRow
from fed.settings.settings import Settings
from server_strategy.grid.nodes import Federation


def git_commit() -> str:
    """The checkout's commit, `+` for uncommitted changes; "unknown" outside a checkout."""
    folder = Path(__file__).resolve().parents[2]
    try:
        commit = _git(folder, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def build(
    settings: Settings,
    method: Method,
    federation: Federation,
    *,
    statistics: Mapping[str, Mapping[str, Mapping[str, float]]],
    rounds: list[dict[str, Any]],
    stage2_losses: list[dict[str, float]],
    ledger: Ledger,
    began: datetime,
    seconds: Mapping[str, float],
    errors: list[dict[str, Any]] | None = None,
    stopped: str | None = None,
) -> dict[str, Any]:
    """The report as a dict; of a simulation the log adds `seconds.server`, what the server took of each phase.

    Args:
        settings: the run's.
        method: what was run.
        federation: who took part.
        statistics: user -> arm -> additive statistics, as the evaluation returns them.
        rounds: a record of each round of stage 1, as `CollectiveStrategy` makes it.
        stage2_losses: {"epoch", "loss"} of each epoch of stage 2.
        ledger: the bytes that crossed.
        began: when the server's part began.
        seconds: total, greeting (waiting for the nodes, who load the base model then), stage1, stage2, evaluate, and
            in a simulation clients, those of the three in which a client was at work.
        errors: {"phase", "round", "user", "reason"} of every reply that was no good, and of every node that stayed out
            (without a user).
        stopped: why the run ended before its end; None where it did not.
    """
    return {
        "app": settings.app,
        "method": settings.method,
        "engine": method.engine,
        "seed": settings.seed,
        "git": git_commit(),
        "began": began.isoformat(timespec="milliseconds"),
        # The base's fingerprint is in `collective.safetensors`.
        "base_model": {key: value for key, value in federation.base.items() if key != "fingerprint"},
        "data": _data(settings, federation),
        "settings": settings.as_config(),
        **_quality(settings, statistics),
        "bytes": ledger.totals(),
        "parameters": {
            "stage1": _count(method.collective_shapes()),
            "stage2": _count(method.private_shapes()),
            "base": federation.base["parameters"],
        },
        "rounds": rounds,
        "stage2_losses": stage2_losses,
        "supernodes": federation.nodes,
        "errors": errors or [],
        "stopped": stopped,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
    }


def _data(settings: Settings, federation: Federation) -> dict[str, Any]:
    """Whose rows were trained on, and how many queries were asked."""
    return {
        "source": settings.data,
        "task": settings.task,
        "users": len(federation.hosts),
        "train_items": sum(federation.stage1.values()) + sum(items for items, _ in federation.stage2.values()),
        "queries": sum(queries for _, queries in federation.stage2.values()),
    }


def _quality(settings: Settings, statistics: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, Any]:
    """Scores of each arm, of all users' statistics together and of each user's; beside them what could be reached."""
    task = get_task(settings.task)
    return {
        "arms": {arm: arm_scores(task, [sums[arm] for sums in statistics.values() if arm in sums]) for arm in ARMS},
        "users": [
            {
                "user_id": user,
                "arms": {arm: _row(arm_scores(task, [sums[arm]])) if arm in sums else None for arm in ARMS},
                "sums": dict(sums),  # what scores of several users are computed from
            }
            for user, sums in sorted(statistics.items())
        ],
        "ceiling": ceiling.of_arm([sums["base"] for sums in statistics.values() if "base" in sums]),
        "comparisons": comparisons.of_arms(task, statistics),
        "synthetic_ceilings": ceilings.of_run(
            settings.data_source,
            task,
            statistics,
            cohorts=settings.cohorts,
            max_queries=settings.max_queries,
            held_out=settings.held_out,
            seed=settings.seed,
        ),
    }


def _row(scores: Mapping[str, float] | None) -> Mapping[str, float] | None:
    return None if scores is None else NumberRow(scores)


def _count(shapes: Mapping[str, tuple[int, ...]]) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


def as_json(report: Mapping[str, Any]) -> Iterator[str]:
    """The text of report.json in pieces, `seconds` at its end (`sims/run.py` adds to them)."""
    yield from strict_json.pieces(report, indent=1)
    yield "\n"
