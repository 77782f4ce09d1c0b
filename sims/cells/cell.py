"""One cell of a comparison: one method on one task with one seed, in one run of the Flower app by `sims/run.py`.

A finished cell leaves `cell.json` in its folder, written last; what has none was cut short, is cleared away and run
again. A cell's name is a hash of its settings and of the data's content, not of the commit or of any path.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from simulation.app_run import run
from simulation.apps import Config, app_of, settings
from simulation.seats import Seat

from fed import strict_json
from fed.answering.comparisons import of_arms
from fed.atomic_write import write_text
from fed.lamp.layouts import find_files
from fed.lamp.tasks import get_task
from fed.settings.settings import Settings, keys

# LoRA's steps and LoReFT's are not of one size: methods that PEFT trains take these, the others their app's own.
LORA_RATES: dict[str, Any] = {"stage1-lr": 0.01, "stage2-lr": 0.005, "average": "fedavg"}
# Methods that are another's stage 1, bit for bit (a test holds it): where both are asked for, one run does for both.
STAGE1_OF = {"perfit-stage1": "perfit", "lora-c": "oppu"}
STAGE1_ARMS = ("base", "stage1")
_NOT_STAGE1 = ("method", "stage2-epochs", "stage2-rank", "stage2-positions", "stage2-lr")
_PLACES = (
    "app",
    "data",
    "output-dir",
    "node-timeout",
    "device",
    "resume",
    "run-deadline",
)  # where a cell runs, not what it is
# Keys of the first release. Later ones at their defaults change nothing, and cells that finished without them keep
# their names.
_FIRST = (
    "task", "cohorts", "stage1-users", "stage2-users", "max-items", "held-out", "retrieved", "profile",
    "base-model", "dtype", "max-length", "token-budget", "activation-cache", "method", "engine", "layers",
    "stage1-rank", "stage2-rank", "positions", "stage2-positions", "style-layer", "style-strength", "local-epochs",
    "stage2-epochs", "batch-size", "stage1-lr", "stage2-lr", "weight-decay", "clip", "seed", "strategy", "rounds",
    "fraction", "average", "wire-dtype", "min-nodes", "reply-timeout", "max-queries", "answer", "max-new-tokens",
    "temperature", "top-k", "top-p",
)  # fmt: skip
_HEAD_BYTES = 1 << 20


@lru_cache(maxsize=64)
def content_of(source: str, task: str) -> str:
    """What tells one data set from another: file names, sizes, and a hash of each file's beginning."""
    if source.split(":")[0] == "synthetic":
        return source
    digest = hashlib.sha256()
    for cohort in find_files(Path(source), get_task(task)):
        for path in (cohort.users, cohort.golds):
            if path is not None:
                with path.open("rb") as file:
                    digest.update(f"{path.name} {path.stat().st_size} ".encode() + file.read(_HEAD_BYTES))
    return digest.hexdigest()


@dataclass(frozen=True)
class Cell:
    """What one run is asked to do.

    Attributes:
        task: LaMP's name of it, such as LaMP_4.
        label: the method as the comparison names it.
        seed: of users and training.
        config: the changes to the app's own settings.
    """

    task: str
    label: str
    seed: int
    config: Config = field(hash=False)

    @property
    def app(self) -> str:
        return app_of(self.task)

    def settings(self) -> Settings:
        """Raises ValueError where a setting breaks its rule."""
        return settings(self.app, self.config)

    @property
    def key(self) -> str:
        """16 hex digits over the settings and the data's content.

        Promise: other settings or data are another key, other places are not (tests/sims/test_compare_methods.py).
        """
        run_settings = self.settings()
        default = {key: field.default for key, field in keys().items()}
        what = {
            key: value
            for key, value in run_settings.as_config().items()
            if key not in _PLACES and (key in _FIRST or value != default[key])
        }
        what["content"] = content_of(run_settings.data_source, run_settings.task)
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]

    def folder(self, root: Path) -> Path:
        plain = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in self.label)
        return root / self.task / f"{plain}-{self.seed}-{self.key}"

    def finished(self, root: Path) -> dict[str, Any] | None:
        """The report of a finished run of this very cell; None where there is none, or it is torn."""
        try:
            content = strict_json.loads((self.folder(root) / "cell.json").read_text(encoding="utf-8"))
            return dict(content["report"]) if content["key"] == self.key else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def run_folder(self, root: Path) -> Path:
        """Where its finished run's own files are, bytes.csv among them. Raises ValueError where it had no run."""
        for report in self.folder(root).glob("*/report.json"):
            return report.parent
        raise ValueError(f"the cell must have had a run of its own, and {self.folder(root)} holds no report.json")

    def run(self, root: Path, say: Callable[[str], None], seat: Seat | None = None) -> dict[str, Any]:
        """Run the cell and keep its report. Raises ValueError where the run fails."""
        folder = self._cleared(root)
        start = time.monotonic()
        finished = run(self.app, {**self.config, "output-dir": str(folder.resolve())}, say=say, seat=seat)
        report = strict_json.loads(finished.report.read_text(encoding="utf-8"))
        report["seconds"]["wall"] = round(time.monotonic() - start, 3)
        return self._keep(folder, report)

    def take(self, root: Path, report: Mapping[str, Any], method: str) -> dict[str, Any]:
        """Keep as this cell's own the stage 1 of a finished run of `method`, whose stage 1 this cell's method is.

        Promise: the numbers are those of a run of its own (tests/sims/test_compare_methods.py).
        """
        stage1 = {arm: report["arms"][arm] if arm in STAGE1_ARMS else None for arm in report["arms"]}
        users = [
            {
                **user,
                "arms": {arm: user["arms"][arm] if arm in STAGE1_ARMS else None for arm in user["arms"]},
                "sums": {arm: sums for arm, sums in user["sums"].items() if arm in STAGE1_ARMS},
            }
            for user in report["users"]
        ]
        taken = {
            **report,
            "method": self.config["method"],
            "settings": self.settings().as_config(),
            "arms": stage1,
            "users": users,
            "comparisons": of_arms(get_task(self.task), {user["user_id"]: user["sums"] for user in users}),
            "bytes": {"stage1": report["bytes"]["stage1"]},
            "parameters": {**report["parameters"], "stage2": 0},
            "stage2_losses": [],
            "seconds": {"stage1": report["seconds"]["stage1"]},
            "taken_from": method,
        }
        return self._keep(self._cleared(root), taken)

    def _cleared(self, root: Path) -> Path:
        folder = self.folder(root)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def _keep(self, folder: Path, report: Mapping[str, Any]) -> dict[str, Any]:
        content = {"key": self.key, "label": self.label, "task": self.task, "seed": self.seed, "report": report}
        write_text(folder / "cell.json", strict_json.dumps(content))
        return dict(report)


def same_stage1(cells: Sequence[Cell]) -> dict[Cell, Cell]:
    """Cells that need no run of their own -> the cell whose stage 1 they are, number for number (`STAGE1_OF`)."""
    configs = {cell: cell.settings().as_config() for cell in cells}
    stage1 = {
        cell: {key: value for key, value in config.items() if key not in _NOT_STAGE1}
        for cell, config in configs.items()
    }
    twins = {}
    for cell in cells:
        whose = STAGE1_OF.get(str(configs[cell]["method"]))
        same = (c for c in cells if c.task == cell.task and configs[c]["method"] == whose and stage1[c] == stage1[cell])
        if other := next(same, None):
            twins[cell] = other
    return twins
