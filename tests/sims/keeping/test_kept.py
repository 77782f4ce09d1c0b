"""What `sims/run.py --keep` keeps: found by its user alone, used by one run at a time, and gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from keeping import keeper, kept, state
from keeping.state import State
from simulation import apps
from simulation.processes import alive

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FLWR_HOME", raising=False)
    return state.folder()


@pytest.fixture
def sleepers():
    processes = [subprocess.Popen(["sleep", "60"], start_new_session=True) for _ in range(3)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def said(at, sleepers, home, told="told"):
    keeper_, *leaders = (state.process(process.pid) for process in sleepers)
    made = State(keeper_, leaders, {"FLWR_HOME": str(home)}, told, True)
    state.write(at, made)
    return made


def test_a_folder_that_others_can_write_to_is_refused(at):
    assert at.stat().st_mode & 0o777 == 0o700
    at.chmod(0o770)
    with pytest.raises(ValueError, match="must be its user's alone"):
        state.folder()


def test_what_is_said_is_read_and_lives_as_long_as_all_of_it(at, sleepers, tmp_path):
    assert state.read(at) is None
    made = said(at, sleepers, tmp_path / "home")
    assert state.read(at) == made and made.lives
    sleepers[2].kill()
    sleepers[2].wait()
    assert not made.lives
    (at / "state.json").write_text('{"keeper": 1}')
    assert state.read(at) is None


def test_another_environment_folder_or_ray_is_another_and_another_terminal_is_not(monkeypatch, tmp_path):
    before = state.digest({"HF_HOME": "/a", "TERM": "xterm"}, {})
    assert state.digest({"HF_HOME": "/a", "TERM": "dumb", "SSH_TTY": "/dev/pts/1"}, {}) == before
    others = {state.digest({"HF_HOME": "/b"}, {}), state.digest({"HF_HOME": "/a"}, {"--num-cpus": 1})}
    monkeypatch.chdir(tmp_path)
    assert len({before, state.digest({"HF_HOME": "/a", "TERM": "xterm"}, {}), *others}) == 4


def test_it_serves_one_run_at_a_time_and_a_second_is_told_so_in_one_line(at):
    with state.used(at):
        assert state.in_use(at)
        with pytest.raises(ValueError, match="serves one run at a time"), state.used(at):
            pass
    assert not state.in_use(at)


def test_stopping_ends_its_processes_and_removes_its_folder_also_where_the_keeper_is_dead(at, sleepers, tmp_path):
    assert not kept.stop(at)
    home = tmp_path / "home"
    home.mkdir()
    said(at, sleepers, home)
    sleepers[0].kill()
    sleepers[0].wait()
    assert kept.stop(at)
    assert not home.exists() and state.read(at) is None
    assert alive(dict(state.process(process.pid) for process in sleepers)) == []


def test_what_is_kept_is_spared_by_a_command_that_ends_all_its_descendants(at, sleepers, tmp_path):
    assert kept.spared() == {}
    said(at, sleepers, tmp_path / "home")
    assert set(kept.spared()) == {process.pid for process in sleepers}


def test_a_users_own_superlink_is_not_kept(at, monkeypatch, tmp_path):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    kept_one = kept.kept_superlink(ray={}, meanwhile=lambda: None)
    with pytest.raises(ValueError, match="FLWR_HOME names one that stays anyway"), kept_one:
        pass


@pytest.mark.parametrize("why", ["idle", "lost", "a run without its command"])
def test_nothing_is_kept_that_nobody_uses_or_that_is_lost_or_whose_run_has_no_command(at, sleepers, monkeypatch, why):
    monkeypatch.setattr(keeper, "EVERY", 0.02)
    leaders = dict(state.process(process.pid) for process in sleepers)
    link = SimpleNamespace(watch=SimpleNamespace(simulations=[1] if why == "a run without its command" else []))
    if why == "idle":
        monkeypatch.setattr(keeper, "IDLE", 0.2)
    elif why == "lost":
        sleepers[1].kill()
    else:
        monkeypatch.setattr(keeper, "ORPHAN", 0.2)
    with state.used(at):  # while a run uses it, it is kept, whatever the clock says
        began = time.monotonic()
        if why == "lost":
            keeper.wait(at, link, leaders)
            return
    keeper.wait(at, link, leaders)
    assert time.monotonic() - began < 30


LISTENS = """#!{python}
import socket, sys, time
words = " ".join(sys.argv).replace("=", " ").split()
listening = socket.create_server(("127.0.0.1", int(words[words.index("--port") + 1])))
time.sleep(60)
"""


@pytest.fixture
def stand_ins(at, monkeypatch, tmp_path):
    """A SuperLink and a Ray that listen and do nothing, beside a Python of this environment's libraries."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python").symlink_to(Path(sys.executable).resolve())
    for name in ("flower-superlink", "ray"):
        (programs / name).write_text(LISTENS.format(python=sys.executable))
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)]))
    monkeypatch.setattr(kept, "flower_cli", lambda environment: nullcontext(environment["FLWR_HOME"]))
    yield
    kept.stop(at)


def test_a_keeper_has_one_superlink_for_run_after_run_until_one_is_cut_short_or_it_is_lost(at, stand_ins):
    def run():
        with kept.kept_superlink(ray={}, meanwhile=lambda: None) as link:
            assert state.in_use(at) and state.read(at).lives and link.has_ray and not link.watch.lost
            return state.read(at)

    first = run()
    home = Path(first.environment["FLWR_HOME"])
    assert run() == first and home.is_dir()
    with pytest.raises(KeyboardInterrupt), kept.kept_superlink(ray={}, meanwhile=lambda: None):
        raise KeyboardInterrupt
    assert alive(dict([first.keeper, *first.leaders])) == [] and not home.exists() and state.read(at) is None
    second = run()
    os.kill(second.leaders[0][0], signal.SIGKILL)
    deadline = time.monotonic() + 30
    while state.read(at) is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(dict(second.leaders)) == [] and not Path(second.environment["FLWR_HOME"]).exists()


@pytest.mark.nightly
def test_runs_on_what_is_kept_equal_one_that_is_not_bit_for_bit_and_nothing_stays_after_stop(short_run, tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    command = [sys.executable, str(REPOSITORY / "sims" / "run.py")]

    def run(name, *options):
        words = ["sims/lamp7", "-c", apps.words(short_run(tmp_path / name)), *options]
        done = subprocess.run([*command, *words], env=environment, cwd=REPOSITORY, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        report = json.loads(Path(done.stdout.strip().splitlines()[-1]).read_text())
        rounds = [{key: value for key, value in row.items() if key != "seconds"} for row in report["rounds"]]
        return {key: report[key] for key in ("arms", "users", "bytes", "stage2_losses")} | {"rounds": rounds}

    alone = run("alone")
    at = tmp_path / "cache" / "perfit-fed" / "kept"
    assert run("first", "--keep") == alone
    first = state.read(at)
    assert first.lives
    assert run("second", "--keep") == alone
    assert state.read(at) == first and first.lives
    stopped = subprocess.run([*command, "--stop"], env=environment, capture_output=True, text=True)
    assert stopped.stdout == "nothing is kept any longer\n"
    members = dict([first.keeper, *first.leaders])
    assert alive(members) == [] and state.read(at) is None
    assert not Path(first.environment["FLWR_HOME"]).exists()
