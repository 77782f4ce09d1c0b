"""Runs that several tests read and none changes."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.settings.settings import Settings
from tests.fed.lamp.folders import write_oppu
from tests.integration.in_process import RecordingGrid, federate


@dataclass(frozen=True)
class Run:
    """A finished run: its settings, its report, all that crossed, and the folder of its results."""

    settings: Settings
    report: dict
    grid: RecordingGrid
    folder: Path


@pytest.fixture(scope="session")
def plain_run(settings_in, tmp_path_factory) -> Run:
    """The settings' own run, on two SuperNodes."""
    run = settings_in(tmp_path_factory.mktemp("plain"))
    return Run(run, *federate(run, 2))


@pytest.fixture(scope="session")
def on_one_node(settings_in, tmp_path_factory):
    """on_one_node("paper") -> the report of the float64 run with these cohorts on one SuperNode."""
    reports: dict[str, dict] = {}

    def report(cohorts: str) -> dict:
        if cohorts not in reports:
            folder = tmp_path_factory.mktemp(f"one-node-{cohorts}")
            run = settings_in(folder, dtype="float64", wire_dtype="float64", cohorts=cohorts)
            reports[cohorts] = federate(run, 1)[0]
        return reports[cohorts]

    return report


@pytest.fixture(scope="session")
def roomy_base(tiny_base, tmp_path_factory) -> str:
    """A copy of the tiny base that reads twice as long rows, for whole texts before a prompt."""
    folder = tmp_path_factory.mktemp("roomy") / "base"
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 1024}))
    return str(folder)


@pytest.fixture(scope="session")
def talkative_base(roomy_base, tmp_path_factory) -> str:
    """A copy of that base that never ends a text, so that it writes profiles and wordings."""
    folder = tmp_path_factory.mktemp("talkative") / "base"
    shutil.copytree(roomy_base, folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"][0] = 0
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


@pytest.fixture(scope="session")
def bare_tweets(tmp_path_factory) -> str:
    """A LaMP_7 folder of synthetic users whose histories are bare, as LaMP's own are."""
    corpus = open_corpus("synthetic:6", get_task("LaMP_7"), seed=0)

    def record(user_id: str) -> dict:
        user = corpus.user(user_id)
        items = [{"id": item["id"], "text": item["text"]} for item in user.profile]
        queries = [{"id": query.id, "input": query.input, "gold": query.gold} for query in user.queries]
        return {"user_id": user_id, "profile": items, "query": queries}

    cohorts = [[record(user_id) for user_id in corpus.cohorts[name]] for name in ("others", "test")]
    return write_oppu(tmp_path_factory.mktemp("bare") / "LaMP_7", *cohorts)
