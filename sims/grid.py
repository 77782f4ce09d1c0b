"""The plan of `compare_methods.py`: which cells, with which settings, and how long they should take.

Every method of a task gets the same users, rows, steps and batches: those of the preset. Only what belongs to a method
differs: the learning rates (LoRA's, or the app's, or those that `sims/search.py` found on held-out history).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cells import CHECKOUT, LORA_RATES, STAGE1_OF, Cell, app_of, settings
from flwr.common.config import parse_config_args

from fed import methods
from fed.base.device import choose_device, choose_dtype
from fed.base.skeleton import skeleton
from fed.lamp.cohorts import roster, stage1_pairs, stage2_pairs, test_pairs
from fed.lamp.records import open_corpus
from fed.lamp.tasks import TASKS, get_task
from fed.settings.methods import METHODS
from fed.settings.settings import Settings

PRESETS = ("small", "paper")
# Seconds on two cores AMD EPYC with AVX512-BF16, bfloat16, SmolLM2-135M: for the plan alone, corrected as cells finish.
START_SECONDS = 22.0
TRAINING_TOKENS_A_SECOND = {"peft": 400.0, "pyreft": 420.0}
OTHER_TRAINING_TOKENS_A_SECOND = 900.0
READING_TOKENS_A_SECOND = 1800.0
WRITING_TOKENS_A_SECOND = 60.0
CHARACTERS_A_TOKEN = 4.0
SLOWER_IN_FLOAT32 = 2.8  # on cores without bf16 instructions: 2.7 to 3.0 by bench_engine.py (README, Speed)


@dataclass(frozen=True)
class Work:
    """What a task's data come to under the preset, in tokens (estimated from characters)."""

    stage1: float
    stage2: float
    prompts: float
    queries: int


def method_of(label: str) -> dict[str, Any]:
    """The settings that a label of --methods stands for: `oppu`, or with settings of its own `rag:retrieved=4`.

    Raises:
        ValueError: no such method, or the part after the colon is no key=value.
    """
    name, *changes = label.split(":")
    if name not in METHODS:
        raise ValueError(f"methods must be among {', '.join(METHODS)}, got {name!r}")
    found: dict[str, Any] = {"method": name}
    for change in changes:
        try:
            parsed = parse_config_args([change])
        except Exception:
            parsed = {}
        if not parsed:
            raise ValueError(f"a method's own settings must be key=value such as rag:retrieved=4, got {label!r}")
        found |= parsed
    return found


def preset(name: str, task: str) -> dict[str, Any]:
    """The settings that all methods of a task share. Raises ValueError for an unknown preset."""
    if name not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    if name == "paper":
        return tomllib.loads((CHECKOUT / "sims" / app_of(task) / "paper.toml").read_text(encoding="utf-8"))
    found = tomllib.loads((CHECKOUT / "sims" / "grid.toml").read_text(encoding="utf-8"))["small"]
    own = {one: found.pop(one) for one in list(found) if one in TASKS}
    return {**found, **own.get(task, {})}


def trains_lora(label: str, shared: Mapping[str, Any], task: str) -> bool:
    """Whether PEFT trains the method."""
    chosen = settings(app_of(task), {**shared, **method_of(label)})
    return methods.make(chosen, skeleton(chosen.base_source)).engine == "peft"


def searched(folder: Path | None, task: str, label: str) -> dict[str, Any]:
    """The settings that `search.py` found for the method; none where it was not asked.

    Of the task itself, else of a task that was searched, first one that is answered alike, by a label or by a text; of
    the method itself, else of the one whose stage 1 it is.
    """
    if folder is None:
        return {}
    name = label.split(":")[0]
    others = sorted(TASKS, key=lambda other: bool(get_task(other).labels) != bool(get_task(task).labels))
    for one in (task, *others):
        for method in (name, STAGE1_OF.get(name, name)):
            if (file := folder / one / f"{method}.toml").is_file():
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
    seeds: task -> its seeds.
    Raises ValueError for whatever would make a run fail at once.
    """
    found = []
    for place in range(max(map(len, seeds.values()))):
        for task in (task for task, own in seeds.items() if place < len(own)):
            seed = seeds[task][place]
            shared = {**preset(preset_name, task), **changes, "data": _data(data, changes)}
            for label in labels:
                rates = LORA_RATES if preset_name == "small" and trains_lora(label, shared, task) else {}
                own = {**rates, **searched(best, task, label), **method_of(label)}
                cell = Cell(task, label, seed, {**shared, **own, **changes, **method_of(label), "seed": seed})
                if place and not _depends_on_seed(cell.settings()):
                    continue
                found.append(cell)
    return found


def _data(folder: Path | None, changes: Mapping[str, Any]) -> str:
    if "data" in changes:
        return str(changes["data"])
    return "synthetic" if folder is None else str(folder.expanduser().resolve())


def _depends_on_seed(chosen: Settings) -> bool:
    method = methods.make(chosen, skeleton(chosen.base_source))
    drawn = bool(method.collective_shapes() or method.private_shapes())
    return drawn or chosen.temperature > 0 or chosen.data.startswith("synthetic")


def work(chosen: Settings) -> Work:
    """What a run trains on and answers. Raises ValueError for bad data."""
    task = get_task(chosen.task)
    corpus = open_corpus(chosen.data_source, task, seed=chosen.seed)
    users = roster(corpus, chosen)

    def tokens(*texts: str) -> float:
        return min(sum(map(len, texts)) / CHARACTERS_A_TOKEN, chosen.max_length)

    one = sum(tokens(*p) for user in users.stage1 for p in stage1_pairs(task, corpus.user(user), chosen))
    two = sum(tokens(*p) for user in users.stage2 for p in stage2_pairs(task, corpus.user(user), chosen))
    asked = [pair for user in users.stage2 for _, pair in test_pairs(task, corpus.user(user), chosen)]
    return Work(one, two, sum(tokens(pair.prompt) for pair in asked), len(asked))


def seconds(cell: Cell, load: Work) -> float:
    """About how long a cell takes alone on two cores, start to end, in the dtype that this machine would take."""
    chosen = cell.settings()
    method = methods.make(chosen, skeleton(chosen.base_source))
    one, two = bool(method.collective_shapes()), bool(method.private_shapes())
    speed = TRAINING_TOKENS_A_SECOND.get(method.engine, OTHER_TRAINING_TOKENS_A_SECOND)
    trained = one * load.stage1 * chosen.rounds * chosen.fraction * chosen.local_epochs
    trained += two * load.stage2 * chosen.stage2_epochs
    arms = 1 + one + 2 * two
    if chosen.answer == "choice" or not chosen.max_new_tokens:
        answering = arms * load.prompts * 1.5 / READING_TOKENS_A_SECOND
    else:
        answering = arms * load.prompts * 2 / READING_TOKENS_A_SECOND
        answering += arms * load.queries * chosen.max_new_tokens / WRITING_TOKENS_A_SECOND
    slower = SLOWER_IN_FLOAT32 if choose_dtype(chosen.dtype, choose_device(chosen.device)) == "float32" else 1.0
    return START_SECONDS + slower * (trained / speed + answering)


def elapsed(guesses: Iterable[float], jobs: int) -> float:
    """About how long cells take together, several at a time: their starts overlap, but the cores compute no faster."""
    return sum(START_SECONDS / jobs + guess - START_SECONDS for guess in guesses)
