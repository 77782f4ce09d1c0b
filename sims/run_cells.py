"""Run many cells one after the other: what has finished before is kept, progress and the time left are shown."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grid
from cells import Cell
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

Reports = dict[Cell, dict[str, Any]]


def duration(seconds: float) -> str:
    """3 h 12 min, 4 min 10 s, 9 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def estimates(cells: Sequence[Cell]) -> dict[Cell, float]:
    """About how many seconds each cell takes. Raises ValueError for bad data."""
    loads: dict[tuple[object, ...], grid.Work] = {}
    found = {}
    for cell in cells:
        s = cell.settings()
        what = (s.task, s.data, s.seed, s.max_items, s.max_length, s.max_queries, s.held_out, s.stage1_users)
        if what not in loads:
            loads[what] = grid.work(s)
        found[cell] = grid.seconds(cell, loads[what])
    return found


def run_cells(
    cells: Sequence[Cell],
    root: Path,
    console: Console,
    after: Callable[[Reports, Mapping[Cell, str]], None] = lambda reports, lost: None,
) -> tuple[Reports, dict[Cell, str]]:
    """Every cell's report, in order, and why the others have none; one that fails does not stop the rest.

    Args:
        after: called with both when a cell has ended.

    Raises:
        ValueError: bad data, or another command at work in `root`, before anything is run.
    """
    guess = estimates(cells)
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ValueError(
                f"one command at a time may run cells in {root}; wait for it, or take another --out"
            ) from None
        return _run_cells(guess, root, console, after)


def _run_cells(
    cells: Mapping[Cell, float], root: Path, console: Console, after: Callable[[Reports, Mapping[Cell, str]], None]
) -> tuple[Reports, dict[Cell, str]]:
    reports = {cell: report for cell in cells if (report := cell.finished(root))}
    lost = {cell: "not run yet" for cell in cells if cell not in reports}
    guess = {cell: cells[cell] for cell in lost}
    whole, spent, guessed = sum(guess.values()), 0.0, 0.0
    console.print(f"{len(cells)} cells, {len(reports)} finished before; about {duration(whole)} to go on two cores")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[left]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=whole or 1.0, left=f"about {duration(whole)} left")
        for number, cell in enumerate(guess, 1):
            head = f"{number}/{len(guess)} {cell.task} {cell.label} seed {cell.seed}"

            def say(line: str, head: str = head) -> None:
                progress.update(bar, description=f"{head}: {line[:60]}")

            say("starting")
            start = time.monotonic()
            try:
                reports[cell] = cell.run(root, say)
                del lost[cell]
                outcome = ""
            except ValueError as problem:
                lost[cell] = " ".join(str(problem).split())
                outcome = f" · failed: {lost[cell]}"
            took = time.monotonic() - start
            spent, guessed = spent + took, guessed + guess[cell]
            left = f"about {duration(spent / guessed * (whole - guessed))} left"
            progress.update(bar, completed=guessed, left=left)
            console.print(f"{head}: {duration(took)}, {left}{outcome}", highlight=False, markup=False)
            after({one: reports[one] for one in cells if one in reports}, lost)
    return {one: reports[one] for one in cells if one in reports}, lost
