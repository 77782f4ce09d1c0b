"""A SuperLink that is watched: what it started is known, and what was lost is said, from one run to the next."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
from simulation import watch
from simulation.processes import alive, end

# A SuperLink whose simulation ends, and who starts another one later, which a lost parent leaves to nobody.
HOUSE = """
(exec -a $NAME sleep 0.3) &
sleep 1.2
setsid bash -c '(exec -a $NAME sleep 60) & sleep 0.6' &
wait
sleep 60
"""


@pytest.fixture
def house(monkeypatch):
    monkeypatch.setattr(watch, "EVERY", 0.05)
    monkeypatch.setattr(watch, "GRACE", 0.2)
    environment = {**os.environ, "NAME": "flwr-simulation"}  # not in the words of the shells
    process = subprocess.Popen(["bash", "-c", HOUSE], env=environment, start_new_session=True)
    watched = watch.Watch(process)
    watched.start()
    yield process, watched
    process.kill()
    process.wait()
    end(watched.finish())


def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def simulations(watched):
    return {pid: since for pid, since in dict(watched.members).items() if watch._command(pid).startswith(b"flwr-sim")}


def test_a_simulation_that_ends_is_told_once_and_those_of_the_next_run_are_known_too(house):
    process, watched = house
    told = []
    watched.when_lost(lambda: told.append(watched.lost))
    until(lambda: watched.lost)
    assert told == ["the simulation's process was lost, in which the ServerApp runs"] and watched.superlink_lives
    until(lambda: simulations(watched))
    time.sleep(1)  # its parent ends: it is nobody's descendant and of no session of the SuperLink's
    members = watched.finish()
    assert len(told) == 1
    (pid,) = alive(simulations(watched))
    assert pid in members


def test_a_superlink_that_is_killed_is_told_with_its_signal_at_once_where_it_is_asked_late(house):
    process, watched = house
    process.kill()
    until(lambda: watched.lost)
    told = []
    watched.when_lost(lambda: told.append(watched.lost))
    assert told == ["the SuperLink was lost, it was ended by SIGKILL"] and not watched.superlink_lives
