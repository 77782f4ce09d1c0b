"""What a signal does to a command: one exception, held back while a child is made; no child outlives it."""

import os
import signal
import subprocess
import sys
import time

import pytest


@pytest.fixture
def leaving(script):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    module = script("console.leaving")
    module.once()
    yield module
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_the_first_signal_raises_and_later_ones_do_nothing(leaving, number, raised):
    with pytest.raises(raised):
        os.kill(os.getpid(), number)
        time.sleep(5)
    for later in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), later)
    time.sleep(0.05)


def test_a_signal_while_held_takes_effect_at_the_end(leaving):
    done = []
    with pytest.raises(KeyboardInterrupt), leaving.held():
        with leaving.held():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_a_child_does_not_outlive_a_signal_that_came_while_it_was_made(leaving, monkeypatch):
    made = []

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(self)
            os.kill(os.getpid(), signal.SIGTERM)  # between the fork and the return

    monkeypatch.setattr(subprocess, "Popen", Popen)
    with (
        pytest.raises(SystemExit) as left,
        leaving.child([sys.executable, "-c", "import time; time.sleep(60)"]),
    ):
        pytest.fail("the body must not be entered")
    assert left.value.code == 143
    assert made[0].poll() == -signal.SIGKILL


def test_a_child_is_waited_for(leaving):
    with leaving.child([sys.executable, "-c", "print(1)"]) as process:
        assert process.stdout.read() == "1\n"
    assert process.returncode == 0


def test_an_orderly_child_has_the_time_to_clean_up(leaving, tmp_path):
    words = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (time.sleep(0.3), sys.exit(7)))"
    words += "; print('ready', flush=True); time.sleep(60)"
    with (
        pytest.raises(ValueError, match="of the body"),
        leaving.child([sys.executable, "-c", words], orderly=True) as process,
    ):
        assert process.stdout.readline() == "ready\n"
        raise ValueError("of the body")
    assert process.returncode == 7


def test_a_seat_that_was_ended_ends_the_run_that_was_just_beginning(script):
    seat = script("simulation.seats").Seat({})
    seat.end()  # nothing is at work here yet
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        seat.take(process)
    assert process.returncode == -signal.SIGTERM
