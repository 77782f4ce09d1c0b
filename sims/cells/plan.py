"""The plan of `compare_methods.py`: which cells, with which settings, and how long they should take.

Every method of a task gets the same users, rows, steps and batches: those of the preset. Only what belongs to a method
differs: the learning rates (LoRA's, or the app's, or those that `sims/search.py` found on held-out history).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from simulation.apps import SIMS, app_of, parsed, settings

from cells.cell import LORA_RATES, STAGE1_OF, Cell
from fed import methods
from fed.base.skeleton import skeleton
from fed.lamp.tasks import TASKS, get_task
from fed.settings.methods import METHODS
from fed.settings.settings import Settings

# What a comparison has by default: RAG with one, two and four items of the history, as the paper's tables; not the
# methods that send half of a LoRA, which answer to the question of bytes.
RAG = ("rag", "rag:retrieved=2", "rag:retrieved=4")
HALVES = ("ffa-lora", "fedsa-lora")
COMPARED = tuple(name for one in METHODS if one not in HALVES for name in (RAG if one == "rag" else (one,)))
PRESETS = ("small", "app", "paper")


def method_of(label: str) -> dict[str, Any]:
    """The settings that a label of --methods stands for: `oppu`, or with settings of its own `rag:retrieved=4`.

    Raises:
        ValueError: no such method, or the part after the colon is no key=value.
    """
    name, *changes = label.split(":")
    if name not in METHODS:
        raise ValueError(f"methods must be among {', '.join(METHODS)}, got {name!r}")
    try:
        return {"method": name, **parsed(changes)}
    except ValueError:
        raise ValueError(f"a method's settings must be key=value such as rag:retrieved=4, got {label!r}") from None


def preset(name: str, task: str) -> dict[str, Any]:
    """The settings that all methods of a task share. Raises ValueError for an unknown preset."""
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    if name == "app":
        return {}
    if name == "paper":
        return tomllib.loads((SIMS / app_of(task) / "paper.toml").read_text(encoding="utf-8"))
    shared = tomllib.loads((SIMS / "grid.toml").read_text(encoding="utf-8"))["small"]
    by_task = {task_name: shared.pop(task_name) for task_name in list(shared) if task_name in TASKS}
    return {**shared, **by_task.get(task, {})}


def trains_lora(label: str, shared: Mapping[str, Any], task: str) -> bool:
    """Whether PEFT trains the method."""
    of_method = settings(app_of(task), {**shared, **method_of(label)})
    return methods.make(of_method, skeleton(of_method.base_source)).engine == "peft"


def searched(folder: Path | None, task: str, label: str) -> dict[str, Any]:
    """The settings that `search.py` found for the method; none where it was not asked.

    Of the task itself, else of a task that was searched, first one that is answered alike, by a label or by a text; of
    the method itself, else of the one whose stage 1 it is.
    """
    if folder is None:
        return {}
    name = label.split(":")[0]
    others = sorted(TASKS, key=lambda other: bool(get_task(other).labels) != bool(get_task(task).labels))
    for searched_task in (task, *others):
        for method in (name, STAGE1_OF.get(name, name)):
            if (file := folder / searched_task / f"{method}.toml").is_file():
                return tomllib.loads(file.read_text(encoding="utf-8"))
    return {}


def cells(
    seeds: Mapping[str, Sequence[int]],
    labels: Sequence[str],
    *,
    data: Path | None,
    preset_name: str,
    changes: Mapping[str, Any],
    best: Path | None = None,
) -> list[Cell]:
    """The whole grid, every task's first seed before the second ones, so that the tables fill early.

    A method that draws nothing (nothing trained, greedy answers, real data) is run with the first seed alone.

    Promise: every method of a task gets the same users, rows and steps (tests/sims/test_compare_methods.py).

    Args:
        seeds: task -> its seeds.
        labels: methods, with settings of their own after a colon.
        data: a folder with a folder a task; None: synthetic users, unless `changes` say otherwise.
        preset_name: of `PRESETS`.
        changes: settings of every cell, over all others.
        best: what `search.py` wrote, for `searched`.

    Raises:
        ValueError: whatever would make a run fail at once.
    """
    grid = []
    for place in range(max(map(len, seeds.values()))):
        for task in (task for task, task_seeds in seeds.items() if place < len(task_seeds)):
            seed = seeds[task][place]
            shared = {**preset(preset_name, task), **changes, "data": _data(data, changes)}
            for label in labels:
                rates = LORA_RATES if preset_name != "paper" and trains_lora(label, shared, task) else {}
                of_method = {**rates, **searched(best, task, label), **method_of(label)}
                cell = Cell(task, label, seed, {**shared, **of_method, **changes, **method_of(label), "seed": seed})
                if place and not _depends_on_seed(cell.settings()):
                    continue
                grid.append(cell)
    return grid


def _data(folder: Path | None, changes: Mapping[str, Any]) -> str:
    if "data" in changes:
        return str(changes["data"])
    return "synthetic" if folder is None else str(folder.expanduser().resolve())


def _depends_on_seed(of_cell: Settings) -> bool:
    method = methods.make(of_cell, skeleton(of_cell.base_source))
    drawn = bool(method.collective_shapes() or method.private_shapes())
    return drawn or of_cell.temperature > 0 or of_cell.data.startswith("synthetic")


def seeds_of(words: Sequence[str], tasks: Sequence[str]) -> dict[str, list[int]]:
    """task -> its seeds, from `0,1` for all tasks and `LaMP_4=0,1,2` for one. Raises ValueError."""
    seeds_by_task: dict[str, list[int]] = {task: [0] for task in tasks}
    for word in sorted(words, key=lambda word: "=" in word):  # what is for all first
        task, _, numbers = word.rpartition("=")
        try:
            seeds = [int(seed) for seed in numbers.split(",")]
        except ValueError:
            raise ValueError(f"seeds must be whole numbers such as 0,1,2 or LaMP_4=0,1,2, got {word!r}") from None
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError(f"seeds must differ and not be negative, got {word!r}")
        if task and task not in tasks:
            raise ValueError(f"seeds may be given for the chosen tasks, {', '.join(tasks)}, got {word!r}")
        seeds_by_task |= dict.fromkeys([task] if task else tasks, seeds)
    return seeds_by_task
