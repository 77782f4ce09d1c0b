"""Settings of a short run on the tiny base."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from fed.settings.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def settings(tiny_base: Path, tmp_path: Path):
    """settings(rounds=2, ...) -> Settings of a short LaMP_7 run on the tiny base; keys with `_` for `-`."""
    file = REPOSITORY / "sims" / "lamp7" / "pyproject.toml"
    config = tomllib.loads(file.read_text())["tool"]["flwr"]["app"]["config"]
    short = {
        "base-model": str(tiny_base),
        "data": "synthetic:6",
        "layers": "1,2",
        "stage1-rank": 3,
        "stage2-rank": 2,
        "rounds": 2,
        "fraction": 0.5,
        "stage1-lr": 0.005,
        "stage2-lr": 0.005,
        "local-epochs": 1,
        "stage2-epochs": 1,
        "max-items": 5,
        "max-queries": 2,
        "max-new-tokens": 6,
        "batch-size": 4,
        "positions": "all",
        "stage2-positions": "same",
        "average": "svd",
        "strategy": "fedavg",
        "engine": "batched",
        "cohorts": "paper",
        "temperature": 0.0,
        "output-dir": str(tmp_path / "runs"),
    }

    def make(**changes: object) -> Settings:
        return Settings.parse({**config, **short, **{k.replace("_", "-"): v for k, v in changes.items()}})

    return make
