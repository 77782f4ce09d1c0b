"""A run in one process is the run on Flower and Ray, bit for bit, and its process serves one run after the other."""

from __future__ import annotations

import json

import pytest
from simulation import app_run
from simulation.apps import settings
from simulation.in_process import run_here
from simulation.seats import seat
from simulation.worker import worker

TIMES = ("began", "seconds", "git")


def content(path):
    """A report without its times and its place; the ledger's entries; whose vaults there are."""
    report = {key: value for key, value in json.loads(path.read_text()).items() if key not in TIMES}
    report["settings"] = {**report["settings"], "output-dir": None}
    for row in report["rounds"]:
        del row["seconds"]
    vaults = sorted(p.name for p in (path.parent / "vault").iterdir())
    return report, sorted((path.parent / "bytes.csv").read_text().splitlines()), vaults


def test_a_run_in_one_process_equals_one_on_flower_and_ray_bit_for_bit(flower_run, tmp_path):
    here = flower_run.config | {"output-dir": str(tmp_path)}
    ours = run_here(settings("lamp7", here), supernodes=flower_run.supernodes)
    assert content(ours) == content(flower_run.finished.report)
    report, _, vaults = content(ours)
    assert report["arms"]["swapped"] is not None and len(vaults) > 6


@pytest.mark.nightly
def test_a_run_at_a_seat_with_a_process_equals_one_on_flowers_own_federation_bit_for_bit(short_run, tmp_path):
    heard = []
    with seat(1, "in-process") as here:
        ours = app_run.run("lamp7", short_run(tmp_path / "here"), say=heard.append, seat=here).report
    on_flower = app_run.run("lamp7", short_run(tmp_path / "flower"), say=lambda _: None).report
    assert content(ours) == content(on_flower)
    assert any(line.startswith("stage 1: round 2/2") for line in heard)


@pytest.mark.nightly
def test_a_pooled_run_in_one_process_equals_one_on_flower_and_ray_bit_for_bit(short_run, tmp_path):
    heard = []
    on_flower = app_run.run("lamp7", short_run(tmp_path / "flower", stage1="pooled"), say=heard.append).report
    ours = run_here(settings("lamp7", short_run(tmp_path / "here", stage1="pooled")))
    assert content(ours) == content(on_flower)
    assert any(line.startswith("stage 1: pooled") for line in heard) and len(content(ours)[0]["rounds"]) == 1


@pytest.mark.nightly
def test_one_process_runs_app_after_app_as_any_other_would_and_outlives_a_run_that_fails(short_run, tmp_path):
    heard = []
    with worker(1) as process:
        wrong = short_run(tmp_path, layers="1,9")
        with pytest.raises(ValueError, match="layers must lie in 0..3"):
            process.run("lamp7", wrong, lambda _: None)
        reports = [process.run("lamp7", short_run(tmp_path, seed=n), heard.append) for n in (1, 1, 2)]
        here = run_here(settings("lamp7", short_run(tmp_path, seed=1)))
    first, again, other = (content(path) for path in reports)
    assert first == again == content(here) and first[0]["arms"] != other[0]["arms"]
    assert sum(line.startswith("stage 1: round 2/2") for line in heard) == 3


def test_a_process_that_has_ended_is_one_line(short_run, tmp_path):
    with worker(1) as process:
        process.end()
        with pytest.raises(ValueError, match="has ended"):
            process.run("lamp7", short_run(tmp_path), lambda _: None)


def test_a_setting_that_breaks_its_rule_is_told_before_anything_starts():
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        settings("lamp7", {"rounds": 0})
