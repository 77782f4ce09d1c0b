"""A folder is held by one run at a time, and the lock says by which."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from fed.resuming import lock
from fed.resuming.lock import FILE, HeldError, holding


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.1)


def test_another_run_is_refused_by_the_name_of_the_one_that_holds_it(tmp_path):
    with holding(tmp_path, "17"):
        with pytest.raises(HeldError, match=r"run 17 holds it; wait"), holding(tmp_path, "18"):
            pass
        with pytest.raises(HeldError, match=r"run 17 holds it"), holding(tmp_path, "17", alone=True):
            pass
    with holding(tmp_path, "18"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_processes_of_one_run_hold_it_together_and_the_last_one_leaves_nothing(tmp_path):
    with holding(tmp_path, "17"):
        with holding(tmp_path, "17"):
            assert (tmp_path / FILE).read_text() == "17"
        with pytest.raises(HeldError), holding(tmp_path, "18"):
            pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path):
    code = (
        "import sys; from pathlib import Path; from fed.resuming.lock import holding\n"
        f"with holding(Path({str(tmp_path)!r}), '17', alone=True):\n    print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(HeldError, match="run 17"), holding(tmp_path, "18"):
        pass
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    with holding(tmp_path, "18"):
        assert (tmp_path / FILE).read_text() == "18"


def test_where_there_is_no_folder_there_is_nothing_to_hold(tmp_path):
    with holding(tmp_path / "nowhere", "17"):
        pass
    assert list(tmp_path.iterdir()) == []
