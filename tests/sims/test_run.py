"""`sims/run.py` on real Flower and Ray: it waits, fails when the run fails, and its last line is the report."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
from simulation import apps, wall_clock

from fed import strict_json
from fed.privacy.vault import PERSONAL

REPOSITORY = Path(__file__).resolve().parents[2]
APP = REPOSITORY / "sims" / "lamp7"


def sims_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "sims" / "run.py"), str(APP), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_whole_run_on_flower_and_ray_leaves_a_report_and_its_files(flower_run):
    path = flower_run.finished.report
    report = json.loads(path.read_text())
    assert report["supernodes"] == flower_run.supernodes
    assert len(report["users"]) == 6 and len(report["rounds"]) == 2
    assert {p.name for p in path.parent.iterdir()} == {
        "bytes.csv",
        "checkpoint.previous.safetensors",
        "checkpoint.safetensors",
        "collective.safetensors",
        "report.html",
        "report.json",
        "rounds.jsonl",
        "run.log",
        "vault",
    }
    assert len(list((path.parent / "vault").glob(f"*/{PERSONAL}"))) == 6
    for words in ("stage 1: round 2/2", "stage 2, node 2, 2 users: step"):
        assert any(words in line for line in flower_run.heard)
    assert flower_run.finished.measured_peak() > 10**8
    parts = report["seconds"]["command"]
    assert min(parts.values()) > 0 and parts["clients"] == report["seconds"]["clients"]
    assert parts["wall"] == pytest.approx(sum(value for name, value in parts.items() if name != "wall"))
    assert parts["clients"] < sum(report["seconds"][phase] for phase in ("stage1", "stage2", "evaluate"))


@pytest.mark.nightly
def test_a_whole_run_tells_its_steps_its_table_its_memory_and_its_time_and_ends_with_the_path_of_its_report(
    short_run, tmp_path
):
    federation = "num-supernodes=3 client-resources-num-cpus=1"
    done = sims_run("-c", apps.words(short_run(tmp_path)), "--federation-config", federation)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())["supernodes"] == 3
    for words in (
        "stage 1: round 2/2",
        "stage 2, node 2, 2 users: step",
        "stage 1 + 2",
        "peak memory of all processes",
        " s in all: start-up ",
    ):
        assert words in done.stdout


def test_the_account_of_a_commands_time_counts_what_is_outside_of_clients_beyond_an_allowance(monkeypatch):
    clock = wall_clock
    report = {
        "began": "2026-11-24T10:00:00.000+00:00",
        "seconds": {"total": 80.0, "greeting": 10.0, "clients": 60.0},
    }
    server = 1795514400.0
    parts = clock.account(report, server - 15.0, server + 84.0)
    assert parts == {"wall": 99.0, "startup": 25.0, "clients": 60.0, "between": 10.0, "shutdown": 4.0}
    # 25 s of start-up, 20 of them allowed: 5 + 10 + 4 of 79 s
    assert clock.line(parts).endswith("24.1% outside of clients beyond the first 20 s of start-up")
    assert 0 < time.time() - clock.command_began() < 3600


def test_the_account_goes_into_a_report_whose_users_are_copied_and_not_read(tmp_path):
    users = [{"user_id": f"ü{n}", "arms": {"base": {"loss": math.nan, "x": [{}]}}, "sums": {}} for n in range(3)]
    seconds = {"total": 80.0, "greeting": 10.0, "clients": 60.0}
    content = {"began": "2026-11-24T10:00:00.000+00:00", "users": users, "rounds": [], "seconds": seconds}
    path = tmp_path / "report.json"
    path.write_text(strict_json.dumps(content, indent=1) + "\n")
    assert wall_clock.without_users(path) == (content | {"users": []}, 3)
    parts = wall_clock.add(path, 1795514400.0 - 15.0, 1795514400.0 + 84.0)
    assert parts and parts["wall"] == 99.0
    seconds["command"] = parts
    assert path.read_text() == strict_json.dumps(content, indent=1) + "\n"
    del seconds["clients"]  # of devices, whose server cannot tell
    path.write_text(strict_json.dumps(content, indent=1) + "\n")
    assert wall_clock.add(path, 0.0, 1.0) is None


@pytest.mark.nightly
def test_a_run_whose_server_raises_exits_non_zero_with_one_line(short_run, tmp_path):
    done = sims_run("-c", apps.words(short_run(tmp_path, layers="1,9")))
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("error: layers must lie in 0..3")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('data="/nowhere"', "/nowhere"),
        ("rounds=0", "rounds must be at least 1, got 0"),
        ('rounds="two"', "rounds must be a whole number, got 'two'"),
        ("no-such-key=1", "no key 'no-such-key'"),
        ('average="mean"', "average must be one of"),
        ('base-model="/nowhere/model.gguf"', "base-model GGUF file must exist"),
        ("rounds", "key=value"),
        ("/nowhere/real.toml", "readable TOML file"),
    ],
)
def test_a_mistake_gives_one_line_before_anything_is_asked_of_a_superlink(
    command, monkeypatch, tmp_path, override, words
):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))  # a SuperLink of somebody else's: none is started, none is there
    ended = command("run", APP, "-c", override)
    assert ended.code == 1 and ended.out == ""
    assert words in ended.err and len(ended.err.strip().splitlines()) == 1


def test_a_mistake_costs_seconds_and_gives_one_line_where_a_superlink_is_being_started():
    done = sims_run("-c", 'data="/nowhere"')
    assert done.returncode == 1 and done.stdout == ""
    assert "/nowhere" in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_file_of_settings_and_pairs_after_it_reach_the_settings_in_that_order(tmp_path):
    """Every kind of value, as `flwr` reads it: sims/run.py and Flower are given the same words."""
    file = tmp_path / "mine.toml"
    file.write_text('rounds = 7\nfraction = 1.0\nlayers = "1,2"  # a comment\nstage1-lr = 5e-3\nseed = 3\n')
    words = [apps.spelled_out(str(file)), apps.spelled_out('seed=4 positions="f1+l2"')]
    found = apps.settings_of(APP, words)
    assert (found.rounds, found.fraction, found.layers, found.stage1_lr) == (7, 1.0, "1,2", 0.005)
    assert (found.seed, found.positions) == (4, "f1+l2")


def test_a_folder_that_is_no_app_is_refused(command, monkeypatch, tmp_path):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    ended = command("run", tmp_path)
    assert ended.code == 1 and "must be a folder with a pyproject.toml" in ended.err
