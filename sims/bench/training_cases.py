"""Training by every engine in turn: rows to train on, tokens a second, the losses compared."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.in_turn import Engine, Timed, in_turn, ratio
from bench.opponents import lora_alone, pyreft_alone
from fed.base.model import BaseModel
from fed.edits.loreft import EditBank, EditShape
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward.activation_cache import CACHE
from fed.forward.batching import Row, tokenize
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.randomness import generator
from fed.training import train as training
from fed.training.plan import TrainSettings

TOKENS, LABELS = 48, 20
EVERYWHERE = Positions.parse("all")
PLAN = TrainSettings(epochs=1, batch_size=16, rate=0.001, weight_decay=0.0, token_budget=16 * TOKENS)
CACHE_BYTES = 512 << 20  # as the apps' activation-cache


def some_rows(base: BaseModel, count: int) -> list[Row]:
    """`count` rows of exactly 28 prompt and 20 completion tokens, EOS included, from the synthetic users' texts."""
    task = get_task("LaMP_7")
    corpus = open_corpus("synthetic", task, seed=0)
    tokens: list[int] = []
    for user in corpus.cohorts["others"]:
        for row in tokenize([task.query_pair(q) for q in corpus.user(user).queries], base.tokenizer, 256):
            tokens += [*row.prompt, *row.completion]
    rows = []
    for i in range(count):
        start = i * (TOKENS - 1) % (len(tokens) - TOKENS)
        piece = tokens[start : start + TOKENS - 1]
        cut = TOKENS - LABELS
        rows.append(Row(tuple(piece[:cut]), (*piece[cut:], int(base.tokenizer.eos_token_id))))
    return rows


def bench_training(
    base: BaseModel,
    users: int,
    rows: int,
    layers: tuple[int, ...],
    repeats: int,
    timed: int,
    tick: Callable[[str], None],
    pass_tokens: int = PLAN.token_budget,
) -> dict[str, Any]:
    """Stage 2 of two epochs: pyreft, PEFT, ours alone, ours together.

    Ours with the activation cache, as the apps have it; every turn begins with an empty one.

    Promise: all engines' losses agree on the same rows (tests/sims/test_bench_engine.py).

    Args:
        users: how many train.
        rows: of each user.
        layers: the decoder blocks that are edited.
        repeats: timed turns of each engine.
        timed: of the users that train one after the other, how many are timed.
        tick: hears the engine whose turn it is.
        pass_tokens: padded tokens of a pass that users share.
    """
    # The same edits, rows and minibatches for all.
    shape = EditShape(layers, 4, base.skeleton.hidden_size)
    pool = some_rows(base, users * rows)
    user_rows = [pool[u * rows : (u + 1) * rows] for u in range(users)]
    few = range(min(timed, users))
    plan = replace(PLAN, batch_size=min(16, rows), epochs=2, activation_cache=CACHE_BYTES, token_budget=pass_tokens)

    def draws(who: Sequence[int]) -> list[torch.Generator]:
        return [generator(0, "bench", u) for u in who]

    def edits(who: Sequence[int]) -> EditBank:
        return EditBank.identity(shape, [generator(0, "edit", u) for u in who]).to(device=base.device)

    def ours(groups: Sequence[Sequence[int]]) -> tuple[int, list[list[float]]]:
        losses = []
        CACHE.clear()
        for who in groups:
            stack = EditStack(Layer(edits(who), EVERYWHERE))
            losses += training.train(base, stack, [user_rows[u] for u in who], draws(who), plan)
        return plan.epochs * rows * TOKENS * len(losses), [result.step_losses for result in losses]

    def alone(fit: Callable[[int], list[float]]) -> tuple[int, list[list[float]]]:
        return plan.epochs * rows * TOKENS * len(few), [fit(u) for u in few]

    # Each engine, in turn.
    engines: dict[str, Engine] = {
        "pyreft": lambda: alone(lambda u: pyreft_alone(base, edits([u]), user_rows[u], plan, draws([u])[0])),
        "peft": lambda: alone(lambda u: lora_alone(base, user_rows[u], plan, draws([u])[0])),
        "alone": lambda: ours([[u] for u in few]),
        "together": lambda: ours([range(users)]),
    }
    timings = in_turn(engines, repeats, tick, base.device)
    fair = compare_losses(timings)
    return {
        "users": users,
        "rows": rows,
        "timed_users": len(few),
        "pass_tokens": pass_tokens,
        "engines": {name: timed.as_json() for name, timed in timings.items()},
        "users_per_minute": {
            n: 60 / (plan.epochs * rows * TOKENS) * statistics.median(t.rates) for n, t in timings.items()
        },
        "alone_over_pyreft": ratio(timings["alone"], timings["pyreft"]),
        "alone_over_peft": ratio(timings["alone"], timings["peft"]),
        "together_over_pyreft": ratio(timings["together"], timings["pyreft"]),
        "together_over_alone": ratio(timings["together"], timings["alone"]),
        **fair,
    }


def compare_losses(timings: dict[str, Timed]) -> dict[str, float]:
    """That nobody wins by computing something else: relative differences of the timed users' step losses."""

    def worst(a: str, b: str, steps: slice) -> float:
        pairs = zip(timings[a].losses or [], timings[b].losses or [], strict=False)
        return max(abs(x / y - 1) for ours, theirs in pairs for x, y in zip(ours[steps], theirs[steps], strict=True))

    return {
        "together_against_alone_worst": worst("alone", "together", slice(None)),
        "pyreft_first_step_difference": worst("alone", "pyreft", slice(1)),
        "pyreft_worst_difference": worst("alone", "pyreft", slice(None)),
    }
