"""Flower's command line in one process: command after command, whatever they print, and killed in the middle."""

from __future__ import annotations

import os
import threading

import pytest
from services import flower_cli
from services.flower_cli import answer
from simulation.processes import stat

# A command line whose `flwr` is this: it says its words, fails when asked to, prints JSON, or goes on for a minute.
FLWR = """
import json, sys, time
def app(words, standalone_mode):
    if words[0] == "fail":
        raise RuntimeError("all is lost")
    if words[0] == "wait":
        print("begun", flush=True)
        time.sleep(60)
    if words[0] == "json":
        print("a warning", json.dumps({"success": len(words) < 4, "error-message": "no such run", "words": words}))
    else:
        print("said", *words, end="")
    return 0
"""


@pytest.fixture
def cli(tmp_path, monkeypatch):
    (tmp_path / "flwr" / "cli").mkdir(parents=True)
    for package in ("flwr", "flwr/cli"):
        (tmp_path / package / "__init__.py").write_text("")
    (tmp_path / "flwr" / "cli" / "app.py").write_text(FLWR)
    with flower_cli.flower_cli({**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONUNBUFFERED": "1"}) as made:
        yield made
    assert stat(made._process.pid) is None


def test_one_process_runs_command_after_command_and_goes_on_after_one_that_fails(cli):
    assert list(cli.lines("log", "7")) == ["said log 7"]
    failed = "".join(cli.lines("fail"))
    assert "RuntimeError: all is lost" in failed and "0" * 32 not in failed
    assert list(cli.lines("ls")) == ["said ls"]
    assert cli.json("json")["words"] == ["json", "--format", "json"]
    with pytest.raises(ValueError, match="no such run"):
        cli.json("json", "9")
    with pytest.raises(ValueError, match="all is lost"):
        cli.json("fail")


def test_a_text_that_looks_like_an_end_is_a_text(cli):
    assert list(cli.lines("log", "0123456789abcdef0123456789abcdef 0\nrun ended: 0")) == [
        "said log 0123456789abcdef0123456789abcdef 0\n",
        "run ended: 0",
    ]


def test_killed_in_the_middle_of_a_command_it_says_no_more_and_every_later_one_nothing(cli):
    lines = cli.lines("wait")
    assert next(lines) == "begun\n"
    threading.Timer(0.1, cli.kill).start()
    assert list(lines) == []
    assert list(cli.lines("ls")) == []


def test_an_answer_is_read_behind_what_stands_before_it():
    assert answer('Using SuperLink\n{"run-id": "5"}\nbye', "run") == {"run-id": "5"}
    with pytest.raises(ValueError, match="flwr run failed"):
        answer("", "run")
