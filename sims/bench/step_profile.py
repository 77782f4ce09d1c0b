"""What holds a training step: the shares of its kinds of work, the speed of its bare products, and their count.

The count is of multiply-adds, two FLOPs each, in products alone: Linears, attention, output projection; edits and
adapters weigh less than one in a hundred and are left out. What has to be multiplied for a token:

    pyreft   every block forward; backward to the lowest edit; logits of every token forward and backward
    PEFT     every block forward; backward to the first block's q and v; logits likewise
    ours     the blocks below the lowest edit once for all epochs; the others forward and backward; logits of labels

Shapes:  T tokens of a row · d hidden size · V vocabulary
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from bench.in_turn import in_turn, ratio
from bench.opponents import pyreft_alone
from bench.training_cases import CACHE_BYTES, EVERYWHERE, LABELS, PLAN, TOKENS, some_rows
from fed.base.model import BaseModel
from fed.edits.hooks import decoder_blocks
from fed.edits.loreft import EditBank, EditShape
from fed.edits.stack import EditStack, Layer
from fed.forward.activation_cache import CACHE
from fed.randomness import generator
from fed.training import train as training

OPTIMIZER = "perfit: optimizer"
# The first group that has a part of the operation's name in it.
GROUPS: dict[str, tuple[str, ...]] = {
    "matrix products": ("aten::mm", "aten::addmm", "aten::linear", "mkldnn_linear"),
    "log-softmax of labels": ("log_softmax", "aten::gather", "scatter", "aten::exp_"),
    "attention and edits, row by row": ("bmm", "attention", "softmax"),
    "copies": ("copy", "clone", "cat", "contiguous", "index", "pad", "fill", "zero", "stack", "select"),
    "elementwise": ("mul", "add", "sub", "neg", "silu", "sigmoid", "div", "pow", "sqrt", "mean", "sum", "cos", "sin"),
}


def group_of(name: str) -> str:
    """The kind of work that an operation of torch is; "other" where the name tells none."""
    return next((group for group, parts in GROUPS.items() if any(part in name for part in parts)), "other")


@contextmanager
def _named_optimizer() -> Iterator[None]:
    """Clipping, AdamW and retraction under one name in a profile."""
    where: list[tuple[Any, str]] = [
        (training, "clip_per_user"),
        (training.StackedAdamW, "step"),
        (EditBank, "retract_"),
    ]
    before = [getattr(owner, name) for owner, name in where]

    def named(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            with record_function(OPTIMIZER):
                return function(*arguments)

        return run

    try:
        for (owner, name), function in zip(where, before, strict=True):
            setattr(owner, name, named(function))
        yield
    finally:
        for (owner, name), function in zip(where, before, strict=True):
            setattr(owner, name, function)


def shares(step: Callable[[], object], device: str) -> dict[str, float]:
    """Share of each kind of work in what `step` computes, by time spent in operations themselves; sums to 1."""
    gpu = device.startswith("cuda")
    with _named_optimizer(), profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * gpu]) as profiled:
        step()
    spent: dict[str, float] = defaultdict(float)
    for event in profiled.events():
        seconds = event.self_device_time_total if gpu else event.self_cpu_time_total
        parent, inside = event, False
        while parent is not None and not inside:
            inside, parent = parent.name == OPTIMIZER, parent.cpu_parent
        spent["optimizer" if inside else group_of(event.name)] += seconds
    total = sum(spent.values())
    return {name: value / total for name, value in sorted(spent.items(), key=lambda item: -item[1])}


def _block_linears(base: BaseModel, block: int = 0) -> list[nn.Linear]:
    return [module for module in decoder_blocks(base.model)[block].modules() if isinstance(module, nn.Linear)]


def flops_per_token(
    base: BaseModel, layers: tuple[int, ...], tokens: int, labels: int, epochs: int
) -> dict[str, float]:
    """FLOPs in products for each trained token, by engine, on rows of `tokens` of which `labels` have a loss."""
    blocks, d = base.skeleton.layers, base.skeleton.hidden_size
    linears = _block_linears(base)
    block = 2 * sum(linear.weight.numel() for linear in linears) + 4 * tokens * d
    to_qv = block - 2 * sum(linear.weight.numel() for linear in linears[:3])  # the first block, less q, k and v
    head = 2 * base.model.get_output_embeddings().weight.numel()
    above = blocks - 1 - layers[0]
    attention_twice = 4 * tokens * d  # its backward pass has a product for each of two factors
    back = above * (block + attention_twice)
    return {
        "pyreft": blocks * block + back + 2 * head,
        "peft": blocks * block + (blocks - 1) * (block + attention_twice) + to_qv + attention_twice / 2 + 2 * head,
        "ours": (layers[0] + 1) * block / epochs + above * block + back + 2 * head * labels / tokens,
    }


def product_speed(base: BaseModel, rows: int, repeats: int = 3) -> float:
    """FLOP/s of one block's Linears on `rows` tokens, forward and backward to the input, one after the other; best."""
    with torch.no_grad():
        weights = [linear.weight for linear in _block_linears(base)]
        into = [torch.randn(rows, w.shape[1], device=w.device).to(w.dtype) for w in weights]
        out = [torch.randn(rows, w.shape[0], device=w.device).to(w.dtype) for w in weights]
        best = float("inf")
        for _ in range(repeats + 1):
            _wait(base.device)
            start = time.perf_counter()
            for _ in range(8):
                for weight, x, y in zip(weights, into, out, strict=True):
                    x @ weight.mT
                    y @ weight
            _wait(base.device)
            best = min(best, time.perf_counter() - start)
    return 8 * 2 * 2 * rows * sum(w.numel() for w in weights) / best


def peak_speed(device: str, dtype: torch.dtype, size: int = 8192) -> float:
    """FLOP/s of a product of two large square matrices: what the device reaches at best."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = float("inf")
    for _ in range(4):
        _wait(device)
        start = time.perf_counter()
        a @ b
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def bench_profile(
    base: BaseModel, layers: tuple[int, ...], repeats: int, rows: int, tick: Callable[[str], None]
) -> dict[str, Any]:
    """One user's stage 2 of `rows` rows, two epochs: the shares of our step, and what its products alone would take."""
    shape = EditShape(layers, 4, base.skeleton.hidden_size)
    pool = some_rows(base, rows)
    plan = replace(PLAN, batch_size=min(16, rows), epochs=2, activation_cache=CACHE_BYTES)
    tokens = plan.epochs * rows * TOKENS

    def bank() -> EditBank:
        return EditBank.identity(shape, [generator(0, "edit", 0)]).to(device=base.device)

    def ours() -> tuple[int, list[list[float]]]:
        CACHE.clear()
        stack = EditStack(Layer(bank(), EVERYWHERE))
        results = training.train(base, stack, [pool], [generator(0, "bench", 0)], plan)
        return tokens, [result.step_losses for result in results]

    def pyreft() -> tuple[int, list[list[float]]]:
        return tokens, [pyreft_alone(base, bank(), pool, plan, generator(0, "bench", 0))]

    timings = in_turn({"pyreft": pyreft, "ours": ours}, repeats, tick, base.device)
    tick("profile")
    spent = shares(ours, base.device)
    tick("bare products")
    flops = flops_per_token(base, layers, TOKENS, LABELS, plan.epochs)
    bare = product_speed(base, plan.batch_size * TOKENS)
    rates = {name: statistics.median(timed.rates) for name, timed in timings.items()}
    return {
        "rows": rows,
        "shares": spent,
        "flops_per_token": flops,
        "tokens_per_second": rates,
        "product_flops_per_second": bare,
        "reached_flops_per_second": {name: flops[name] * rate for name, rate in rates.items()},
        "ours_over_pyreft": ratio(timings["ours"], timings["pyreft"]),
        "largest_ratio_to_pyreft": bare / flops["ours"] / rates["pyreft"],
        "largest_ratio_by_count": flops["pyreft"] / flops["ours"],
    }
