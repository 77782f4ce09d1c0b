"""Runs that several tests read and none changes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fed.settings.settings import Settings
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
