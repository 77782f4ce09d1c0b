"""What is shown of a run's log: no text off the network hides a line of ours, or what comes after it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from simulation.superlink import show_log, superlink

LINES = """\
INFO :      Flower's own line
warning: node 5 takes no part: \\u{1b}[8m Warning: INFO : (raylet
warning: user 'a' could not be tested: x error: all is lost
(ClientAppActor pid=7) stage 2, node 0: step 1/2
UserWarning: a library's advice
stage 1: round 1/1 · 3 users, 1 failed · training loss 1.0000 · 0.1 s
report: here
"""


def test_a_quoted_text_hides_neither_its_own_line_nor_a_later_one(tmp_path, capsys):
    error, whole = show_log(LINES.splitlines(keepends=True), tmp_path / "run.log", verbose=False)
    shown = capsys.readouterr().out.splitlines()
    lines = LINES.splitlines()
    assert (error, whole) == ("", False)
    assert shown == [lines[1], lines[2], "stage 2, node 0: step 1/2", lines[5], lines[6]]
    assert (tmp_path / "run.log").read_text() == LINES


def test_a_log_is_shown_up_to_the_runs_last_line_and_after_an_error_to_its_end(tmp_path):
    lines = LINES.splitlines(keepends=True) + ["INFO :      Flower's own end\n"]
    quoted = ["(ClientAppActor pid=7) report: here\n", "warning: report: here\n"]
    assert show_log([*quoted, *lines], tmp_path / "run.log", verbose=False, until="report: here") == ("", True)
    assert (tmp_path / "run.log").read_text() == "".join([*quoted, *lines[:-1]])
    failed = ["error: the disk is full\n", *lines]
    assert show_log(failed, tmp_path / "2.log", verbose=False, until="report: here") == (failed[0].strip(), False)
    assert (tmp_path / "2.log").read_text() == "".join(failed)
    assert show_log(lines[:3], tmp_path / "3.log", verbose=False, until="report: here") == ("", False)


@pytest.mark.parametrize("users", [None, "file"])
def test_caches_that_were_a_runs_own_are_no_ones_after_it(tmp_path, monkeypatch, users):
    (tmp_path / "file").write_text("")  # no folder: as a home that is read only
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if users:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / users))
    before, start, within = os.environ.get("XDG_CACHE_HOME"), subprocess.Popen, []
    monkeypatch.setattr(subprocess, "Popen", lambda command, executable=None, **of: start(["sleep", "60"], **of))

    def look():
        within.append(Path(os.environ["XDG_CACHE_HOME"]))
        assert within[0].parent.is_dir()
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"), superlink(own=True, meanwhile=look):
        pass
    assert within[0].parent.name.startswith("perfit-flwr-") and not within[0].parent.exists()
    assert os.environ.get("XDG_CACHE_HOME") == before
