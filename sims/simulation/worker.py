"""A process that is kept to run app after app in itself: the base is loaded once, Flower and Ray are never started.

It reads a run a line, {"app": …, "config": {…}} in JSON, and says what the run says; then one line of its own that
begins with `DONE` and holds {"report": path} or {"error": "…"}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from console import leaving

from simulation.apps import CHECKOUT, SIMS, Config, settings

DONE = "run ended: "


class Worker:
    """The parent's end of such a process; made by `worker`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, app: str, config: Config, say: Callable[[str], None]) -> Path:
        """One run, whose lines `say` hears; returns the path of report.json.

        Raises:
            ValueError: the run failed, with its own error, or the process has ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        last = "the process that runs apps has ended"
        try:
            self._process.stdin.write(json.dumps({"app": app, "config": dict(config)}) + "\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line.startswith(DONE):
                    outcome = json.loads(line.removeprefix(DONE))
                    if "error" in outcome:
                        raise ValueError(outcome["error"])
                    return Path(outcome["report"])
                if said := line.strip():
                    last = said
                    say(said)
        except BrokenPipeError:
            pass
        raise ValueError(last)

    def end(self) -> None:
        """Tell the process to end, also in the middle of a run."""
        if self._process.poll() is None:
            self._process.terminate()


@contextmanager
def worker(threads: int) -> Iterator[Worker]:
    """A process with so many threads of torch, as a Ray actor with so many CPUs has; it ends with the context.

    Fewer where OMP_NUM_THREADS says fewer, on a machine that others use too.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(threads, int(asked)) if asked.isdecimal() and int(asked) else threads
    path = os.pathsep.join([str(SIMS), str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": str(threads)}
    with leaving.held():
        process = subprocess.Popen(
            [sys.executable, "-m", "simulation.worker"],
            env=environment,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=leaving.with_parent,
        )
    try:
        yield Worker(process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait()


def serve() -> None:
    """The process's own end: runs what it reads until there is no more."""
    from simulation.in_process import run_here

    for line in sys.stdin:
        wanted = json.loads(line)
        try:
            outcome = {"report": str(run_here(settings(wanted["app"], wanted["config"])))}
        except Exception as problem:  # whatever a run raises is told; the next one may do better
            outcome = {"error": " ".join(str(problem).split()) or type(problem).__name__}
        print(f"{DONE}{json.dumps(outcome)}", flush=True)


if __name__ == "__main__":
    serve()
