"""The log of a run: its lines, its clocks, and the files that appear while the run goes on."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest
from flwr.app import MetricRecord, RecordDict

from fed import methods
from fed.base.skeleton import Skeleton
from fed.privacy.tensor_files import read_tensors
from server_strategy.grid.nodes import Federation
from server_strategy.report import run_log
from server_strategy.report.run_log import RunLog

BASE = {"name": "tiny", "parameters": 1234, "dtype": "float32", "device": "cpu", "fingerprint": "f" * 16}
SUMS = {"base": {"nll": 8.0, "tokens": 4}}


@pytest.fixture
def federation():
    hosts = {"ann": 1, "bob": 2, "cem": 2}
    return Federation(hosts, {"ann": 3, "bob": 2}, {"cem": (1, 1)}, BASE, 2, ["zoe"], Skeleton("tiny", 1234, 32, 4, ()))


@pytest.fixture
def log(settings, tmp_path, federation):
    log = RunLog(settings(rounds=3), tmp_path)
    log.greet(federation)
    return log


def row(number, failed=0):
    return {"round": number, "users": 2, "failed": failed, "loss": 1.23456, "seconds": 0.51, "orthogonality_error": 0.0}


def test_the_greeting_says_who_takes_part_on_which_base(log, federation, capsys):
    capsys.readouterr()
    log.greet(federation)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.endswith("perfit on tiny, 1,234 parameters, float32 on cpu; 3 users on 2 SuperNodes")


def test_what_the_bases_cache_cannot_serve_is_said_line_by_line(log, federation, capsys):
    lines = ["rows stay", "labels whole"]
    log.greet(replace(federation, base={**federation.base, "left_out": lines}))
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said == [f"left out on this base, whose cache cannot serve it: {line}" for line in lines]


def test_every_round_is_in_the_file_and_on_the_terminal_as_it_ends(log, capsys, tmp_path):
    capsys.readouterr()
    for number in (1, 2):
        log.add_round(row(number, failed=number - 1))
        lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == [row(n, failed=n - 1) for n in range(1, number + 1)]
    assert capsys.readouterr().out.splitlines() == [
        "stage 1: round 1/3 · 2 users · training loss 1.2346 · 0.5 s",
        "stage 1: round 2/3 · 2 users, 1 failed · training loss 1.2346 · 0.5 s",
    ]


def test_stage_2_is_told_with_its_losses_by_epoch_where_there_are_any(log, capsys):
    capsys.readouterr()
    with log.phase("stage2"):
        log.add_stage2(1, [])
        log.add_stage2(2, [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5}])
    assert re.sub(r"\d+\.\d s", "N s", capsys.readouterr().out).splitlines() == [
        "stage 2: 1 users done · N s",
        "stage 2: 2 users done, loss by epoch 2.0000 → 1.5000 · N s",
    ]


def test_the_collective_edit_is_kept_with_what_it_belongs_to(log, tmp_path, random_bank):
    edit = random_bank(1, rank=3).tensors(0)
    log.keep_collective(edit)
    tensors, header = read_tensors(tmp_path / "collective.safetensors")
    assert all((tensors[name] == tensor).all() for name, tensor in edit.items())
    assert header == {"layers": "1,2", "base": "f" * 16, "method": "perfit"}


def test_the_end_writes_the_files_and_a_phase_lasts_as_long_as_its_block(settings, log, federation, capsys, tmp_path):
    method = methods.make(settings(), federation.skeleton)
    with log.phase("stage1"):
        time.sleep(0.05)
        log.add_round(row(1))
    with log.phase("evaluate"):
        pass
    report = log.write(method, {"cem": SUMS})
    seconds = report["seconds"]
    assert list(seconds) == ["total", "stage1", "evaluate"]  # nobody said when clients were at work
    assert seconds["total"] >= seconds["stage1"] >= 0.05 and seconds["stage1"] > seconds["evaluate"]
    assert report["rounds"] == [row(1)] and report["stage2_losses"] == []
    assert report["users"][0]["sums"] == SUMS
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert {path.name for path in tmp_path.iterdir()} == {"bytes.csv", "report.html", "report.json", "rounds.jsonl"}
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'report.json'}"


def test_report_json_is_there_where_a_file_after_it_cannot_be_written(settings, log, federation, capsys, tmp_path):
    (tmp_path / "bytes.csv").mkdir()  # no file can take its place
    method = methods.make(settings(), federation.skeleton)
    with pytest.raises(OSError, match="bytes.csv"):
        log.write(method, {"cem": SUMS})
    assert json.loads((tmp_path / "report.json").read_text())["users"][0]["user_id"] == "cem"
    assert (tmp_path / "report.html").is_file()
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"report, and no more: {tmp_path / 'report.json'}"
    assert f"report: {tmp_path / 'report.json'}" not in lines  # which `sims/run.py` takes for a run's good end


def test_of_a_simulation_the_servers_part_of_each_phase_is_what_no_client_was_at_work_in(
    settings, federation, monkeypatch, tmp_path
):
    now = [1000.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0])
    monkeypatch.setattr(run_log, "time", clock)
    log = RunLog(settings(), tmp_path)
    log.greet(federation)

    def phase(name, seconds, worked=None):
        with log.phase(name):
            if worked:
                span = {"began": now[0] + worked[0], "ended": now[0] + worked[1]}
                log.work.take(RecordDict({"timing": MetricRecord(span)}))
            now[0] += seconds

    phase("greeting", 7.0)
    phase("stage1", 4.0, (-5.0, 3.0))  # a client that was at work before, until the third second
    phase("evaluate", 2.0, (0.5, 9.0))  # and one that says that it is at work after
    server = log.write(methods.make(settings(), federation.skeleton), {"cem": SUMS})["seconds"]["server"]
    assert server == {"seconds": {"stage1": 1.0, "evaluate": 0.5, "report": 0.0}, "share": 0.25}
