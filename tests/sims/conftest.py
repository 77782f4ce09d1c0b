"""Commands called in this process, and one real run on Flower and Ray that every test reads and none changes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from simulation import app_run, seats
from simulation.worker import Worker, worker


@pytest.fixture
def script() -> Callable[[str], ModuleType]:
    """script("cells.cell") -> the module sims/cells/cell.py."""
    return importlib.import_module


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, and what it said."""

    code: int
    out: str
    err: str


@pytest.fixture
def command(script, capsys, monkeypatch) -> Callable[..., Ended]:
    """command("bench_engine", "--parts", "train") -> Ended: the command's own `main`, without a process of its own."""

    def run(name: str, *arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()
        code = script(name).main()
        said = capsys.readouterr()
        return Ended(code, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def painted() -> Callable[[Any, Path], list[Path]]:
    """In place of `exploration.figures.save`: a figure is made, but not laid out and written, which takes a second."""

    def save(drawing: Any, folder: Path) -> list[Path]:
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        drawing.paint(figure)
        assert figure.axes and ", seed " in drawing.title
        for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
            # Formulas are not read in our figures: a logarithmic axis of matplotlib's own would show its TeX.
            assert not any("$" in label.get_text() for label in axis.get_ticklabels(which="both"))
        return [folder / f"{drawing.name}.png"]

    return save


@pytest.fixture
def quick_figures(script, monkeypatch, painted) -> None:
    monkeypatch.setattr(script("explore"), "save", painted)


@pytest.fixture(scope="session")
def short_run(tiny_base: Path) -> Callable[..., dict[str, Any]]:
    """short_run(folder, seed=1) -> the run config of a short run of lamp7 on the tiny base; keys with `_` for `-`."""

    def make(folder: Path, **changes: object) -> dict[str, Any]:
        config = {
            "base-model": str(tiny_base),
            "layers": "1,2",
            "data": "synthetic:6",
            "rounds": 2,
            "fraction": 0.5,
            "max-items": 4,
            "max-queries": 2,
            "max-new-tokens": 4,
            "temperature": 0.5,
            "output-dir": str(folder),
        }
        return config | {key.replace("_", "-"): value for key, value in changes.items()}

    return make


@dataclass(frozen=True)
class FlowerRun:
    """A finished run on Flower and Ray.

    Attributes:
        config: its run config.
        supernodes: how many it was asked to have.
        finished: its report's path and its processes' memory.
        heard: the steps that it told while it went on.
    """

    config: dict[str, Any]
    supernodes: int
    finished: app_run.Finished
    heard: list[str]


@pytest.fixture(scope="session")
def flower_run(short_run, tmp_path_factory) -> FlowerRun:
    """`python sims/run.py sims/lamp7`, once, on three SuperNodes with one thread each: for reading only."""
    config, heard = short_run(tmp_path_factory.mktemp("flower")), []
    three = seats.Seat(os.environ, "num-supernodes=3 client-resources-num-cpus=1")
    return FlowerRun(config, 3, app_run.run("lamp7", config, say=heard.append, seat=three), heard)


@pytest.fixture(scope="session")
def running_worker() -> Iterator[Worker]:
    """The product's process that runs app after app, started once for all tests."""
    with worker(1) as process:
        yield process


@pytest.fixture
def kept_worker(running_worker: Worker, monkeypatch) -> None:
    """Kept from one command to the next, as from one cell to the next: cells that run one at a time take this one."""
    run_cells, own_seat = importlib.import_module("cells.run_cells"), seats.seat

    def seat(jobs: int, runtime: str) -> AbstractContextManager[seats.Seat]:
        if (jobs, runtime) == (1, "in-process"):
            return nullcontext(seats.Seat({}, worker=running_worker))
        return own_seat(jobs, runtime)

    monkeypatch.setattr(run_cells, "seat", seat)
