"""A run in one process is the run on Flower and Ray, bit for bit, and its process serves one run after the other."""

from __future__ import annotations

import json

import pytest
from simulation import app_run
from simulation.apps import settings
from simulation.seats import seat
from simulation.worker import worker

TIMES = ("began", "seconds", "git")


def config(tiny_base, folder, **changes):
    return {
        "base-model": str(tiny_base),
        "layers": "1,2",
        "data": "synthetic:6",
        "rounds": 2,
        "fraction": 0.5,
        "max-items": 4,
        "max-queries": 2,
        "max-new-tokens": 4,
        "temperature": 0.5,
        "output-dir": str(folder),
    } | changes


def content(path):
    """A report without its times and its place; and the ledger's entries."""
    report = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMES}
    report["settings"] = {**report["settings"], "output-dir": None}
    for row in report["rounds"]:
        del row["seconds"]
    return report, sorted((path.parent / "bytes.csv").read_text().splitlines())


def test_a_run_in_one_process_equals_one_on_flower_and_ray_bit_for_bit(tiny_base, tmp_path):
    heard = []
    with seat(1, "in-process") as here:
        ours = app_run.run("lamp7", config(tiny_base, tmp_path / "here"), say=heard.append, seat=here).report
    on_flower = app_run.run("lamp7", config(tiny_base, tmp_path / "flower"), say=lambda _: None).report
    assert content(ours) == content(on_flower)
    assert json.loads(ours.read_text())["arms"]["swapped"] is not None
    assert any(line.startswith("stage 1: round 2/2") for line in heard)
    private = [sorted(p.name for p in (r.parent / "vault").iterdir()) for r in (ours, on_flower)]
    assert private[0] == private[1] and len(private[0]) > 6


def test_one_process_runs_app_after_app_and_outlives_a_run_that_fails(tiny_base, tmp_path):
    with worker(1) as process:
        wrong = config(tiny_base, tmp_path, layers="1,9")
        with pytest.raises(ValueError, match="layers must lie in 0..3"):
            process.run("lamp7", wrong, lambda _: None)
        reports = [process.run("lamp7", config(tiny_base, tmp_path, seed=n), lambda _: None) for n in (1, 1, 2)]
    first, again, other = (content(path)[0] for path in reports)
    assert first == again and first["arms"] != other["arms"]


def test_a_process_that_has_ended_is_one_line(tiny_base, tmp_path):
    with worker(1) as process:
        process.end()
        with pytest.raises(ValueError, match="has ended"):
            process.run("lamp7", config(tiny_base, tmp_path), lambda _: None)


def test_a_setting_that_breaks_its_rule_is_told_before_anything_starts():
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        settings("lamp7", {"rounds": 0})
