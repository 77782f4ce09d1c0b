"""Run many cells, one after the other or several at a time: what has finished before is kept, progress is shown."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from simulation.seats import Seat, seat

from cells.cell import Cell, same_stage1
from cells.estimate import duration, elapsed, estimates

Reports = dict[Cell, dict[str, Any]]
Lost = Mapping[Cell, str]
COLUMNS = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"), TimeElapsedColumn())


def run_cells(
    cells: Sequence[Cell],
    root: Path,
    console: Console,
    after: Callable[[Reports, Lost], None] = lambda reports, lost: None,
    *,
    jobs: int = 1,
    runtime: str = "in-process",
    share_stage1: bool = True,
) -> tuple[Reports, dict[Cell, str]]:
    """Every cell's report, in order, and why the others have none; one that fails does not stop the rest.

    Promise: a cell that finished before is not run again (tests/sims/test_compare_methods.py).

    Args:
        root: where finished cells are kept.
        after: called with both when a cell has ended.
        jobs: cells at a time (`seats`).
        runtime: where a cell runs, of `console.command.RUNTIMES`.
        share_stage1: one run does for a method and for another that is its stage 1 (`same_stage1`).

    Raises:
        ValueError: bad data, or another command at work in `root`, before anything is run.
    """
    assert jobs >= 1
    guesses = estimates(cells, runtime)
    with _alone_in(root):
        outcomes = Outcomes(guesses, root, same_stage1(list(guesses)) if share_stage1 else {})
        to_run = {cell: guesses[cell] for cell in outcomes.to_run()}
        console.print(
            f"{len(guesses)} cells, {len(guesses) - len(outcomes.lost)} finished before; {len(to_run)} to run, {jobs} "
            f"at a time, about {duration(elapsed(to_run.values(), jobs, runtime))} on two cores"
        )
        with Progress(*COLUMNS, console=console, transient=True) as progress:
            _run(to_run, outcomes, progress, after, jobs, runtime)
    return outcomes.in_order(), outcomes.lost


class Outcomes:
    """What has become of the cells so far.

    Attributes:
        reports: of those that have finished.
        lost: why the others have no report.
        twins: cells that need no run of their own -> the cell whose stage 1 they are.
    """

    def __init__(self, cells: Iterable[Cell], root: Path, twins: Mapping[Cell, Cell]) -> None:
        self._cells, self.root = list(cells), root
        self.reports: Reports = {cell: report for cell in self._cells if (report := cell.finished(root))}
        self.lost = {cell: "not run yet" for cell in self._cells if cell not in self.reports}
        self.twins = {twin: cell for twin, cell in twins.items() if twin in self.lost}
        for cell in list(self.reports):
            self._share(cell)

    def to_run(self) -> list[Cell]:
        return [cell for cell in self.lost if cell not in self.twins]

    def add(self, cell: Cell, outcome: dict[str, Any] | str) -> None:
        """A cell's report, or why it has none; its twins have theirs by it."""
        if isinstance(outcome, str):
            self.lost[cell] = outcome
        else:
            self.reports[cell] = outcome
            del self.lost[cell]
        self._share(cell)

    def _share(self, cell: Cell) -> None:
        for twin in [twin for twin, other in self.twins.items() if other == cell]:
            if cell in self.reports:
                self.reports[twin] = twin.take(self.root, self.reports[cell], cell.label)
                del self.lost[twin]
            else:
                self.lost[twin] = f"{cell.label}, whose stage 1 it is, failed"

    def in_order(self) -> Reports:
        return {cell: self.reports[cell] for cell in self._cells if cell in self.reports}


@contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Holds the folder's lock. Raises ValueError where another command has it."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"one command at a time may run cells in {root}; wait for it, or take another --out"
            ) from None
        yield


def _run(
    to_run: Mapping[Cell, float],
    outcomes: Outcomes,
    progress: Progress,
    after: Callable[[Reports, Lost], None],
    jobs: int,
    runtime: str,
) -> None:
    """Run the cells, `jobs` at a time; `to_run`: cell -> about how many seconds it takes."""
    whole, done = sum(to_run.values()), 0.0
    bar = progress.add_task(
        "", total=whole or 1.0, left=f"about {duration(elapsed(to_run.values(), jobs, runtime))} left"
    )
    with ExitStack() as stack:
        # A seat for each of the cells that run at a time.
        seats = [stack.enter_context(seat(jobs, runtime)) for _ in range(min(jobs, len(to_run)))]
        free: SimpleQueue[Seat] = SimpleQueue()
        for place in seats:
            free.put(place)

        def work(cell: Cell) -> tuple[float, dict[str, Any] | str]:
            """Seconds, and the report or why there is none."""
            place, start = free.get(), time.monotonic()

            def say(line: str) -> None:
                progress.update(bar, description=f"{cell.task} {cell.label} seed {cell.seed}: {line[:60]}")

            outcome: dict[str, Any] | str
            try:
                say("starting")
                outcome = cell.run(outcomes.root, say, place)
            except ValueError as problem:
                outcome = " ".join(str(problem).split())
            finally:
                free.put(place)
            return time.monotonic() - start, outcome

        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        began = time.monotonic()
        running = {pool.submit(work, cell): cell for cell in to_run}
        try:
            # As each one ends: what became of it, and how long the others should take at this pace.
            for number, future in enumerate(as_completed(running), 1):
                cell = running[future]
                seconds, outcome = future.result()
                outcomes.add(cell, outcome)
                done += to_run[cell]
                left = f"about {duration((time.monotonic() - began) / done * (whole - done))} left"
                progress.update(bar, completed=done, left=left)
                head = f"{number}/{len(to_run)} {cell.task} {cell.label} seed {cell.seed}"
                failed = f" · failed: {outcome}" if isinstance(outcome, str) else ""
                line = f"{head}: {duration(seconds)}, {left}{failed}"
                progress.console.print(line, highlight=False, markup=False)
                after(outcomes.in_order(), outcomes.lost)
        except BaseException:
            # The command is leaving: nothing starts any more, and what runs is told to end.
            for future in running:
                future.cancel()
            for place in seats:
                place.end()
            raise
