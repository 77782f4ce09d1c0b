"""About how long cells take, from the tokens that they train, read and write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cells.cell import Cell
from fed import methods
from fed.base.device import choose_device, choose_dtype
from fed.base.skeleton import skeleton
from fed.lamp.cohorts import roster, stage1_pairs, stage2_pairs, test_pairs
from fed.lamp.records import open_corpus
from fed.lamp.tasks import Pair, get_task
from fed.settings.settings import Settings

# Seconds on two cores AMD EPYC with AVX512-BF16, bfloat16, SmolLM2-135M: for the plan alone, corrected as cells finish.
START_SECONDS = {"in-process": 6.0, "flower": 22.0}  # of a cell, before and between its stages
TRAINING_TOKENS_A_SECOND = {"peft": 400.0, "pyreft": 420.0}
OTHER_TRAINING_TOKENS_A_SECOND = 900.0
READING_TOKENS_A_SECOND = 1800.0
WRITING_TOKENS_A_SECOND = 60.0
CHARACTERS_A_TOKEN = 4.0
SLOWER_IN_FLOAT32 = 2.8  # on cores without bf16 instructions: 2.7 to 3.0 by bench_engine.py (sims/SPEED.md)


@dataclass(frozen=True)
class Work:
    """What a task's data come to under the preset, in tokens (estimated from characters)."""

    stage1: float
    stage2: float
    prompts: float
    queries: int


def work(settings: Settings) -> Work:
    """What a run trains on and answers. Raises ValueError for bad data."""
    task = get_task(settings.task)
    corpus = open_corpus(settings.data_source, task, seed=settings.seed)
    users = roster(
        corpus, cohorts=settings.cohorts, stage1_users=settings.stage1_users, stage2_users=settings.stage2_users
    )
    cohorts, items, queries, held_out = settings.cohorts, settings.max_items, settings.max_queries, settings.held_out

    def tokens(*texts: str) -> float:
        return min(sum(map(len, texts)) / CHARACTERS_A_TOKEN, settings.max_length)

    def stage1(user: str) -> list[Pair]:
        return stage1_pairs(task, corpus.user(user), cohorts=cohorts, max_items=items, held_out=held_out)

    def stage2(user: str) -> list[Pair]:
        return stage2_pairs(task, corpus.user(user), max_items=items, held_out=held_out)

    def tested(user: str) -> list[Pair]:
        questions = test_pairs(task, corpus.user(user), cohorts=cohorts, max_queries=queries, held_out=held_out)
        return [pair for _, pair in questions]

    first_stage = sum(tokens(*pair) for user in users.stage1 for pair in stage1(user))
    second_stage = sum(tokens(*pair) for user in users.stage2 for pair in stage2(user))
    prompts = [tokens(pair.prompt) for user in users.stage2 for pair in tested(user)]
    return Work(first_stage, second_stage, sum(prompts), len(prompts))


def seconds(cell: Cell, load: Work, runtime: str) -> float:
    """About how long a cell takes alone on two cores, start to end, in the dtype that this machine would take.

    Args:
        load: what its data come to.
        runtime: where it runs, of `console.command.RUNTIMES`.
    """
    settings = cell.settings()
    method = methods.make(settings, skeleton(settings.base_source))
    has_stage1, has_stage2 = bool(method.collective_shapes()), bool(method.private_shapes())
    speed = TRAINING_TOKENS_A_SECOND.get(method.engine, OTHER_TRAINING_TOKENS_A_SECOND)
    trained = has_stage1 * load.stage1 * settings.rounds * settings.fraction * settings.local_epochs
    trained += has_stage2 * load.stage2 * settings.stage2_epochs
    arms = 1 + has_stage1 + 2 * has_stage2
    # Retrieved items stand before each prompt, about as long as it.
    prompts = min(load.prompts * (1 + settings.retrieved), load.queries * settings.max_length)
    if settings.answer == "choice" or not settings.max_new_tokens:
        answering = arms * prompts * 1.5 / READING_TOKENS_A_SECOND
    else:
        answering = arms * prompts * 2 / READING_TOKENS_A_SECOND
        answering += arms * load.queries * settings.max_new_tokens / WRITING_TOKENS_A_SECOND
    slower = SLOWER_IN_FLOAT32 if choose_dtype(settings.dtype, choose_device(settings.device)) == "float32" else 1.0
    return START_SECONDS[runtime] + slower * (trained / speed + answering)


def elapsed(guesses: Iterable[float], jobs: int, runtime: str) -> float:
    """About how long cells take together, several at a time: their starts overlap, but the cores compute no faster."""
    start = START_SECONDS[runtime]
    return sum(start / jobs + guess - start for guess in guesses)


def duration(seconds: float) -> str:
    """3 h 12 min, 4 min 10 s, 9 s."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def estimates(cells: Sequence[Cell], runtime: str) -> dict[Cell, float]:
    """About how many seconds each cell takes. Raises ValueError for bad data."""
    loads: dict[tuple[object, ...], Work] = {}
    guesses = {}
    for cell in cells:
        s = cell.settings()
        what: tuple[object, ...] = (s.task, s.data, s.seed, s.cohorts, s.stage1_users, s.stage2_users)
        what += (s.max_items, s.max_length, s.max_queries, s.held_out)
        if what not in loads:
            loads[what] = work(s)
        guesses[cell] = seconds(cell, loads[what], runtime)
    return guesses
