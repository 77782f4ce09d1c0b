"""Run many cells, one after the other or several at a time: what has finished before is kept, progress is shown."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from simulation.seats import Seat, seat

from cells import estimate
from cells.cell import Cell, same_stage1
from cells.estimate import duration, estimates

Reports = dict[Cell, dict[str, Any]]


def run_cells(
    cells: Sequence[Cell],
    root: Path,
    console: Console,
    after: Callable[[Reports, Mapping[Cell, str]], None] = lambda reports, lost: None,
    *,
    jobs: int = 1,
) -> tuple[Reports, dict[Cell, str]]:
    """Every cell's report, in order, and why the others have none; one that fails does not stop the rest.

    Args:
        after: called with both when a cell has ended. jobs: cells at a time (`seats`).

    Raises:
        ValueError: bad data, or another command at work in `root`, before anything is run.
    """
    assert jobs >= 1
    guess = estimates(cells)
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"one command at a time may run cells in {root}; wait for it, or take another --out"
            ) from None
        return _run_cells(guess, root, console, after, jobs)


def _run_cells(
    cells: Mapping[Cell, float],
    root: Path,
    console: Console,
    after: Callable[[Reports, Mapping[Cell, str]], None],
    jobs: int,
) -> tuple[Reports, dict[Cell, str]]:
    reports = {cell: report for cell in cells if (report := cell.finished(root))}
    lost = {cell: "not run yet" for cell in cells if cell not in reports}
    taken = {cell: other for cell, other in same_stage1(list(cells)).items() if cell in lost}
    for cell, other in taken.items():
        if other in reports:
            reports[cell] = cell.take(root, reports[other], other.label)
            del lost[cell]
    guess = {cell: cells[cell] for cell in lost if cell not in taken}
    whole, guessed, total = sum(guess.values()), 0.0, duration(estimate.elapsed(guess.values(), jobs))
    console.print(
        f"{len(cells)} cells, {len(cells) - len(lost)} finished before; {len(guess)} to run, {jobs} at a time, about "
        f"{total} on two cores"
    )
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"), TimeElapsedColumn())
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, console=console, transient=True))
        bar = progress.add_task("", total=whole or 1.0, left=f"about {total} left")
        seats = [stack.enter_context(seat(jobs)) for _ in range(min(jobs, len(guess)))]
        free: SimpleQueue[Seat] = SimpleQueue()
        for one in seats:
            free.put(one)

        def work(cell: Cell) -> tuple[float, dict[str, Any] | str]:
            """Seconds, and the report or why there is none."""
            own, start = free.get(), time.monotonic()

            def say(line: str) -> None:
                progress.update(bar, description=f"{cell.task} {cell.label} seed {cell.seed}: {line[:60]}")

            outcome: dict[str, Any] | str
            try:
                say("starting")
                outcome = cell.run(root, say, own)
            except ValueError as problem:
                outcome = " ".join(str(problem).split())
            finally:
                free.put(own)
            return time.monotonic() - start, outcome

        pool = stack.enter_context(ThreadPoolExecutor(jobs))
        began = time.monotonic()
        running = {pool.submit(work, cell): cell for cell in guess}
        try:
            for number, future in enumerate(as_completed(running), 1):
                cell = running[future]
                took, outcome = future.result()
                words = ""
                if isinstance(outcome, str):
                    lost[cell] = outcome
                    words = f" · failed: {outcome}"
                else:
                    reports[cell] = outcome
                    del lost[cell]
                for twin in [twin for twin, other in taken.items() if other == cell]:
                    if cell in reports:
                        reports[twin] = twin.take(root, reports[cell], cell.label)
                        del lost[twin]
                    else:
                        lost[twin] = f"{cell.label}, whose stage 1 it is, failed"
                guessed += guess[cell]
                spent = time.monotonic() - began
                left = f"about {duration(spent / guessed * (whole - guessed))} left"
                progress.update(bar, completed=guessed, left=left)
                head = f"{number}/{len(guess)} {cell.task} {cell.label} seed {cell.seed}"
                console.print(f"{head}: {duration(took)}, {left}{words}", highlight=False, markup=False)
                after({one: reports[one] for one in cells if one in reports}, lost)
        except BaseException:
            for future in running:
                future.cancel()
            for one in seats:
                one.end()
            raise
    return {one: reports[one] for one in cells if one in reports}, lost
