"""Whole runs of an app by `sims/run.py`, as processes whose lines are heard."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from console import leaving

from simulation.apps import SIMS, Config, words
from simulation.seats import Seat

_STEP = re.compile(r"(stage|evaluat|profiles|warning)")  # what is happening; tables and paths of one run are not


def app_run(config: str, supernodes: str, each: Callable[[int], None]) -> Iterator[str]:
    """The lines of a run of `sims/run.py`; `each` is called once a second with its pid. Raises ValueError."""
    command = [
        sys.executable,
        str(SIMS / "run.py"),
        str(SIMS / "lamp7"),
        "-c",
        config,
        "--federation-config",
        supernodes,
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(1.0):
                each(process.pid)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert process.stdout is not None
            last = ""
            for line in process.stdout:
                yield (last := line.strip())
        finally:
            ended.set()
            watcher.join()
    if process.returncode:
        raise ValueError(f"the run failed: {last}")


def run(app: str, config: Config, say: Callable[[str], None], seat: Seat | None = None) -> Path:
    """A whole run by `sims/run.py`; `say` hears of its steps as they come. Returns the path of report.json.

    Args:
        seat: where to run it; None: on a SuperLink that lives as long as the run.

    Raises:
        ValueError: the run failed, with its own error line.
    """
    command = [sys.executable, str(SIMS / "run.py"), str(SIMS / app), "-c", words(config)]
    if seat is not None and seat.federation:
        command += ["--federation-config", seat.federation]
    environment = None if seat is None else {**seat.environment}
    last = ""
    # A session of its own: who ends this command ends its whole group, and a second signal would cut the run's own
    # clean-up short and leave a SuperLink behind. The run is told once, below.
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True, "env": environment}
    with leaving.child(command, orderly=True, **options) as process:
        assert process.stdout is not None
        if seat is not None:
            seat.take(process)
        for line in process.stdout:
            if line.strip():
                last = line.strip()
                if _STEP.match(line):
                    say(last)
    if process.returncode:
        raise ValueError(f"the run of {config.get('method', app)} failed: {last.removeprefix('error: ')}")
    return Path(last)
