"""Check a run's report.json: every key of the schema, finite numbers, the order of the arms' losses, private bytes."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

# Contracts with readers of report.json.
KEYS = ("app", "method", "engine", "seed", "git", "base_model", "data", "settings")
KEYS += ("arms", "users", "comparisons", "bytes", "parameters", "rounds", "seconds")


def main(path: Path) -> None:
    report = json.loads(path.read_text(encoding="utf-8"))
    missing = [key for key in KEYS if key not in report]
    assert not missing, f"report.json lacks {missing}"
    for name in ("rounds.jsonl", "bytes.csv", "report.html", "collective.safetensors"):
        assert (path.parent / name).stat().st_size > 0, f"{name} is missing or empty"
    losses = {arm: scores["loss_per_token"] for arm, scores in report["arms"].items() if scores}
    assert all(math.isfinite(loss) for loss in losses.values()), losses
    assert losses["stage1"] < losses["base"], f"stage 1 must lower the loss: {losses}"
    assert len(report["users"]) >= 2 and len(report["rounds"]) == report["settings"]["rounds"]
    pairs = {(row["a"], row["b"]) for row in report["comparisons"]}
    assert {("base", "stage1"), ("stage1", "stage1+2"), ("base", "stage1+2")} <= pairs, pairs
    edit = 4 * report["parameters"]["stage1"]
    stage1 = report["bytes"]["stage1"]
    trained = sum(
        row["users"] for row in report["rounds"]
    )  # each sends its edit up; hand-outs are answered without one
    assert stage1["up"]["payload"] == edit * trained, stage1
    assert stage1["down"]["payload"] == edit * (trained + len(report["users"])), stage1
    for way in ("down", "up"):
        assert report["bytes"]["stage2"][way]["payload"] == 0, "stage 2 must send no array"
        assert report["bytes"]["evaluate"][way]["payload"] == 0, "the evaluation must send no array"
    print(f"report checked: {path.name}, losses {losses}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
