"""The cases of `bench_engine.py`: what is timed against what, on which rows, so that nobody computes something else."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from bench.in_turn import Engine, in_turn, now, ratio
from bench.training_cases import CACHE_BYTES, EVERYWHERE, PLAN, TOKENS, some_rows
from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.base.model import BaseModel
from fed.edits.hooks import decoder_blocks
from fed.edits.loreft import EditBank, EditShape
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward import prefix_cache
from fed.forward.activation_cache import CACHE
from fed.randomness import generator
from fed.training import train as training


def bench_cache(
    base: BaseModel, first: int, repeats: int, users: int, rows: int, tick: Callable[[str], None]
) -> dict[str, Any]:
    """Second and later epochs with the activation cache and without, all users in one batch."""
    blocks = base.skeleton.layers
    shape = EditShape((first, (first + blocks) // 2), 4, base.skeleton.hidden_size)
    pool = some_rows(base, users * rows)
    user_rows = [pool[u * rows : (u + 1) * rows] for u in range(users)]
    later: dict[str, list[float]] = {}

    def run(name: str, limit: int) -> None:
        CACHE.clear()
        plan = replace(PLAN, batch_size=rows, epochs=3, activation_cache=limit)
        bank = EditBank.identity(shape, [generator(0, "edit", u) for u in range(users)]).to(device=base.device)
        ends: list[float] = []
        draws = [generator(0, "bench", u) for u in range(users)]
        stack = EditStack(Layer(bank, EVERYWHERE))
        training.train(base, stack, user_rows, draws, plan, on_step=lambda *_: ends.append(now(base.device)))
        later.setdefault(name, []).append((ends[-1] - ends[0]) / (len(ends) - 1))

    for repeat in range(repeats + 1):
        for name, limit in (("without", 0), ("with", CACHE_BYTES)):
            tick(name)
            run(name, limit)
            if not repeat:
                later[name].clear()
    return {
        "first_layer": first,
        "layers": blocks,
        "users": users,
        "rows": rows,
        "seconds_an_epoch": {name: statistics.median(times) for name, times in later.items()},
        "later_epochs_ratio": statistics.median(a / b for a, b in zip(later["without"], later["with"], strict=True)),
    }


def bench_later(
    base: BaseModel, layers: tuple[int, ...], repeats: int, users: int, rows: int, tick: Callable[[str], None]
) -> dict[str, Any]:
    """Second and later epochs of stage 2 over frozen collective edits at `layers`, all users in one batch.

    Three ways in turn: private edits at the same blocks; at the last two of them, from states kept under the frozen
    edits; and at these with nothing kept. Block passes are counted on a row's way, forward and backward.
    """
    hidden = base.skeleton.hidden_size
    # A block is counted by its first product, which is computed of the last one too when the rest of it is cut short.
    firsts = [next(m for m in block.modules() if isinstance(m, nn.Linear)) for block in decoder_blocks(base.model)]
    pool = some_rows(base, users * rows)
    user_rows = [pool[u * rows : (u + 1) * rows] for u in range(users)]
    ways = {"same": (layers, CACHE_BYTES), "later": (layers[-2:], CACHE_BYTES), "nothing kept": (layers[-2:], 0)}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    passes: dict[str, float] = {}
    losses: dict[str, list[float]] = {}

    def run(name: str, private: tuple[int, ...], limit: int) -> float:
        CACHE.clear()
        shared = EditBank.identity(EditShape(layers, 8, hidden), [generator(0, "shared")]).to(device=base.device)
        shared.W.add_(0.05 * torch.randn(shared.W.shape, generator=generator(0, "moved")).to(shared.W))
        draws = [generator(0, "edit", u) for u in range(users)]
        bank = EditBank.identity(EditShape(private, 4, hidden), draws).to(device=base.device)
        stack = EditStack(Layer(shared, EVERYWHERE, shared=True), Layer(bank, EVERYWHERE))
        plan = replace(PLAN, batch_size=rows, epochs=3, activation_cache=limit)
        ends: list[float] = []
        counts: list[int] = []
        counted = 0

        def block_passed(_module: object, _inputs: object, output: Tensor) -> None:
            nonlocal counted
            counted += len(output) * (1 + output.requires_grad)

        def step_done(*_: object) -> None:
            ends.append(now(base.device))
            counts.append(counted)

        handles = [first.register_forward_hook(block_passed) for first in firsts]
        try:
            draws = [generator(0, "bench", u) for u in range(users)]
            results = training.train(base, stack, user_rows, draws, plan, on_step=step_done)
        finally:
            for handle in handles:
                handle.remove()
        losses[name] = [loss for result in results for loss in result.step_losses]
        passes[name] = (counts[-1] - counts[0]) / (len(counts) - 1) / len(pool)
        return (ends[-1] - ends[0]) / (len(ends) - 1)

    for repeat in range(repeats + 1):
        for name, (private, limit) in ways.items():
            tick(name)
            taken = run(name, private, limit)
            if repeat:
                seconds[name].append(taken)
    return {
        "collective_layers": layers,
        "private_layers": layers[-2:],
        "users": users,
        "rows": rows,
        "seconds_an_epoch": {name: statistics.median(times) for name, times in seconds.items()},
        "block_passes_a_row": passes,
        "later_over": {
            name: statistics.median(a / b for a, b in zip(seconds[name], seconds["later"], strict=True))
            for name in ("same", "nothing kept")
        },
        "worst_difference": max(abs(a / b - 1) for a, b in zip(losses["later"], losses["nothing kept"], strict=True)),
    }


def bench_prefix(
    base: BaseModel, layers: tuple[int, ...], repeats: int, users: int, rows: int, tick: Callable[[str], None]
) -> dict[str, Any]:
    """Edits at the last three prompt tokens alone: with what stands before them read once, and computed every time.

    Both with the states below the first edit kept; the limit of the second leaves no room for keys and values.
    """
    where = Positions.parse("l3")
    shape = EditShape(layers, 4, base.skeleton.hidden_size)
    pool = some_rows(base, users * rows)
    own = [pool[u * rows : (u + 1) * rows] for u in range(users)]
    states = users * rows * TOKENS * base.skeleton.hidden_size * int(base.model.dtype.itemsize)

    def engine(limit: int) -> Engine:
        plan = replace(PLAN, batch_size=rows, epochs=2, activation_cache=limit)

        def run() -> tuple[int, list[list[float]]]:
            CACHE.clear()
            bank = EditBank.identity(shape, [generator(0, "edit", u) for u in range(users)]).to(device=base.device)
            draws = [generator(0, "bench", u) for u in range(users)]
            results = training.train(base, EditStack(Layer(bank, where)), own, draws, plan)
            return plan.epochs * rows * users * TOKENS, [result.step_losses for result in results]

        return run

    timings = in_turn({"computed": engine(states), "read once": engine(CACHE_BYTES)}, repeats, tick, base.device)
    pairs = zip(timings["computed"].losses or [], timings["read once"].losses or [], strict=True)
    return {
        "users": users,
        "rows": rows,
        "positions": "l3",
        "tokens": TOKENS,
        "prefix_tokens": sum(prefix_cache.lengths(pool, where)) / len(pool),
        "engines": {name: timed.as_json() for name, timed in timings.items()},
        "read_once_over_computed": ratio(timings["read once"], timings["computed"]),
        "worst_difference": max(abs(x / y - 1) for a, b in pairs for x, y in zip(a, b, strict=True)),
    }


def bench_generation(
    base: BaseModel, users: int, layers: tuple[int, ...], repeats: int, tick: Callable[[str], None]
) -> dict[str, Any]:
    """`users` users' rows, each with its own edit, continued by 16 tokens: in one batch, and one after another.

    The batch also in buffers of full length, whose steps a GPU replays as a CUDA graph.
    """
    shape = EditShape(layers, 4, base.skeleton.hidden_size)
    bank = EditBank.identity(shape, [generator(0, "edit", u) for u in range(users)]).to(device=base.device)
    for u in range(users):  # edits that change something, another for each user
        bank.W[u] += 0.1 * torch.randn(bank.W[u].shape, generator=generator(0, "moved", u)).to(bank.W)
    stack, rows = EditStack(Layer(bank, EVERYWHERE)), some_rows(base, users)
    decoding = Decoding(max_new_tokens=16)
    texts: dict[str, list[str]] = {}

    def run(name: str, groups: Sequence[Sequence[int]], static: bool = False) -> tuple[int, None]:
        texts[name] = []
        for who in groups:
            edited = [EditedRow(rows[u], (u,)) for u in who]
            texts[name] += generate(base, edited, stack, replace(decoding, static=static), token_budget=users * 64)
        return 16 * users, None

    engines: dict[str, Engine] = {
        "one by one": lambda: run("one by one", [[u] for u in range(users)]),
        "mixed": lambda: run("mixed", [range(users)]),
        "static": lambda: run("static", [range(users)], static=True),
    }
    timings = in_turn(engines, repeats, tick, base.device)
    return {
        "rows": users,
        "engines": {name: timed.as_json() for name, timed in timings.items()},
        "mixed_over_one_by_one": ratio(timings["mixed"], timings["one by one"]),
        "replayed": base.device.startswith("cuda"),
        "static_over_mixed": ratio(timings["static"], timings["mixed"]),
        "equal_texts": sum(a == b for a, b in zip(texts["mixed"], texts["one by one"], strict=True)),
        "equal_static_texts": sum(a == b for a, b in zip(texts["static"], texts["mixed"], strict=True)),
    }
