"""What a random search draws: layers, ranks, positions, rates."""

from __future__ import annotations

import random
from typing import Any

from fed import methods
from fed.base.skeleton import skeleton
from fed.settings.settings import Settings

BLOCKS = (2, 3, 4, 6)  # how many decoder blocks are edited, evenly spaced
RANKS = {"stage1-rank": (2, 4, 8, 16), "stage2-rank": (1, 2, 4, 8)}
POSITIONS = {"positions": ("all-f1", "all", "prompt-f1", "l3", "f3+l3"), "stage2-positions": ("same", "l2", "l3")}
# Rates are drawn evenly in their logarithm; those of LoRA reach further, as its steps start from B = 0.
RATES = {"stage1-lr": (0.001, 0.016), "stage2-lr": (0.0003, 0.008)}
LORA_RATES = {"stage1-lr": (0.0005, 0.02), "stage2-lr": (0.0005, 0.02)}
# Draws of a uniform sequence in two dimensions (Roberts' R2: powers of the plastic number): a handful of trials already
# covers both rates, where independent draws leave gaps.
_STRIDES = (0.7548776662466927, 0.5698402909980532)
OVER = ("all", "rates")


def spaced(count: int, blocks: int) -> str:
    """`count` decoder blocks, evenly spaced in a base of `blocks`: 3 of 30 are 8,15,22."""
    return ",".join(str(blocks * (place + 1) // (count + 1)) for place in range(count))


def draw(trial: int, start: Settings, *, seed: int, over: str = "all") -> dict[str, Any]:
    """The settings of the n-th trial: none of its own for trial 0. Only what the method has a use for is drawn.

    Promise: they depend on the seed, the task, the method and the number alone (tests/sims/test_search.py).

    Args:
        trial: its number.
        start: the settings that the search starts from; they say which method and base model.
        seed: of the whole search.
        over: of `OVER`: whether more than the rates is drawn.

    Raises:
        ValueError: a method that trains nothing.
    """
    base = skeleton(start.base_source)
    method = methods.make(start, base)
    stages = {1: bool(method.collective_shapes()), 2: bool(method.private_shapes())}
    if not any(stages.values()):
        raise ValueError(f"method must have something to train for a search, and {start.method} trains nothing")
    if not trial:
        return {}
    dice = random.Random(f"{seed} {start.task} {start.method} {trial}")
    lora = method.engine == "peft"
    drawn: dict[str, Any] = {}
    if not lora and over == "all":
        drawn["layers"] = spaced(dice.choice([count for count in BLOCKS if count < base.layers]), base.layers)
        for stage, (rank, where) in enumerate(zip(RANKS, POSITIONS, strict=True), 1):
            drawn |= {rank: dice.choice(RANKS[rank])} if stages[stage] else {}
            drawn |= {where: dice.choice(POSITIONS[where])} if stages[stage] else {}
    shift = random.Random(f"{seed} {start.task} {start.method} rates")
    for stage, (key, (low, high)) in enumerate((LORA_RATES if lora else RATES).items(), 1):
        place = (shift.random() + trial * _STRIDES[stage - 1]) % 1.0
        rate = low * (high / low) ** place
        drawn |= {key: float(f"{rate:.3g}")} if stages[stage] else {}
    return drawn
