"""Where cells run: a SuperLink of its own, or one process, kept from one cell to the next, and a share of the cores.

In one process (`simulation.worker`) a cell starts neither Flower nor Ray, some 30 s each, and the base is loaded once.
Several seats at a time keep the cores busy where a single run waits (Flower's start, polling, imports), and one thread
an actor multiplies as fast as two that wait for each other. What a cell's numbers are does not depend on its seat: the
SuperNodes are as many as ever, only their actor's threads differ (which some processors show by rounding).
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from services import ray_head

from fed import threads
from simulation.apps import federation_of, words
from simulation.superlink import superlink
from simulation.worker import Worker, worker


@dataclass
class Seat:
    """One place for a cell at a time.

    Attributes:
        environment: for `sims/run.py`, which then uses this seat's SuperLink.
        federation: Flower's federation config, "" for Flower's own.
        worker: the process that runs cells here in itself; None: they run on Flower.
        process: the run at work.
        ended: no run should go on here.
    """

    environment: Mapping[str, str]
    federation: str = ""
    worker: Worker | None = None
    process: subprocess.Popen[str] | None = field(default=None, repr=False)
    ended: bool = False

    def take(self, process: subprocess.Popen[str]) -> None:
        """A run has begun here; it is told to end at once where the seat was ended while it began."""
        self.process = process
        if self.ended:
            process.terminate()

    def end(self) -> None:
        """Tell the run that is at work here, or about to be, to end."""
        self.ended = True
        if self.worker is not None:
            self.worker.end()
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()


def cores_of(jobs: int, cores: int | None = None) -> int:
    """The cores of one of `jobs` seats; a seat alone has all, and what Flower gives an actor, two, at least."""
    cores = cores or threads.available()
    return max(2, cores) if jobs == 1 else max(1, cores // jobs)


def share(jobs: int, cores: int | None = None) -> str:
    """The federation config of one of `jobs` seats: nothing for a seat alone, else its part of the cores."""
    if jobs == 1:
        return ""
    cores_each = cores_of(jobs, cores)
    return f"client-resources-num-cpus={cores_each} init-args-num-cpus={cores_each}"


@contextmanager
def seat(jobs: int, runtime: str) -> Iterator[Seat]:
    """One of `jobs` seats; its SuperLink or process, and all that it started, ends with the context.

    Args:
        runtime: of `console.command.RUNTIMES`.
    """
    if runtime == "in-process":
        with worker(cores_of(jobs)) as process:
            yield Seat({}, worker=process)
        return
    federation = federation_of(share(jobs))
    with superlink(own=True, ray=ray_head.for_ray(federation)) as link:
        rest = ray_head.without_ray(federation) if link.has_ray else federation
        yield Seat(link.environment, words(rest))
