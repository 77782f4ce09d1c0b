"""A whole run of an app by `sims/run.py`, as a process whose lines are heard: how every command starts one."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from console import leaving

from simulation.apps import SIMS, Config, words
from simulation.seats import Seat

_STEP = re.compile(r"(stage|evaluat|profiles|warning)")  # what is happening; tables and paths of one run are not
_PEAK = re.compile(r"peak memory of all processes: ([\d.]+) GB")


@dataclass(frozen=True)
class Finished:
    """What a run left behind.

    Attributes:
        report: the path of its report.json.
        peak_bytes: the most memory (PSS) of all its processes together; None where the SuperLink was there before.
    """

    report: Path
    peak_bytes: int | None

    def measured_peak(self) -> int:
        """The peak. Raises ValueError where it is not known."""
        if self.peak_bytes is None:
            raise ValueError("memory is measured where a run starts a SuperLink of its own: unset FLWR_HOME")
        return self.peak_bytes


def run(
    app: str,
    config: Config,
    *,
    say: Callable[[str], None],
    seat: Seat | None = None,
    each_second: Callable[[int], None] | None = None,
) -> Finished:
    """A whole run: by `sims/run.py`, or at a seat that has a process for it in that process.

    Args:
        app: the name of a folder of `sims/`.
        config: changes to the app's own settings.
        say: hears of its steps as they come.
        seat: where to run it; None: on a SuperLink that lives as long as the run.
        each_second: called with the pid of `sims/run.py` while it runs, by another thread.

    Raises:
        ValueError: the run failed, with its own error line.
    """
    if seat is not None and seat.worker is not None:
        return Finished(seat.worker.run(app, config, lambda line: say(line) if _STEP.match(line) else None), None)
    # The command, and where it runs.
    command = [sys.executable, str(SIMS / "run.py"), str(SIMS / app), "-c", words(config)]
    if seat is not None and seat.federation:
        command += ["--federation-config", seat.federation]
    environment = None if seat is None else {**seat.environment}
    last, peak = "", None
    # A session of its own: who ends this command ends its whole group, and a second signal would cut the run's own
    # clean-up short and leave a SuperLink behind. The run is told once, by `child`.
    with leaving.child(command, env=environment, orderly=True, new_session=True) as process:
        assert process.stdout is not None
        if seat is not None:
            seat.take(process)
        with _watched(process.pid, each_second):
            for line in process.stdout:
                if not (said := line.strip()):
                    continue
                last = said
                if _STEP.match(said):
                    say(said)
                elif memory := _PEAK.match(said):
                    peak = round(float(memory[1]) * 1e9)
    # The last line is the report's path, or the error.
    if process.returncode:
        raise ValueError(f"the run of {config.get('method', app)} failed: {last.removeprefix('error: ')}")
    return Finished(Path(last), peak)


@contextmanager
def _watched(pid: int, each_second: Callable[[int], None] | None) -> Iterator[None]:
    if each_second is None:
        yield
        return
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(1.0):
            each_second(pid)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
