"""What users who lie send in place of what their rows taught them.

    sign-flip   v ↦ −v, the opposite map                        scaling   v ↦ 30 v
    noise       Gaussian noise, 10 times the size of v          backdoor  trained on rows of which half carry a trigger
                                                                          and ask for the attacker's own answer

A backdoor is trained as every user trains, and sent as it is; the others change W − R and b and leave R.

Shapes:  L edited blocks · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fed.base.model import BaseModel
from fed.forward.batching import Row
from fed.methods.method import Tensors
from fed.randomness import generator

ATTACKS = ("sign-flip", "scaling", "noise", "backdoor")
SCALE, NOISE = 30.0, 10.0
TRIGGER, TARGET = "cf mn bb ", " Buy now!"


def lie(attack: str, reply: Tensors, name: tuple[object, ...]) -> Tensors:
    """What is sent instead of `reply`.

    Args:
        attack: of `ATTACKS`; a backdoor was trained, and changes nothing here.
        reply: {"R", "W", "b"}, or {"D", "b"} where R is frozen.
        name: of the generator of the noise: (seed, round, user).
    """
    if attack == "backdoor":
        return reply
    parts = {"D": reply["W"] - reply["R"] if "W" in reply else reply["D"], "b": reply["b"]}
    if attack == "noise":
        draw = generator(0, "noise", *name)
        for part, tensor in parts.items():
            size = NOISE * tensor.double().square().mean().sqrt()
            parts[part] = tensor + size.to(tensor) * torch.randn(tensor.shape, generator=draw).to(tensor)
    else:
        factor = -1.0 if attack == "sign-flip" else SCALE
        parts = {part: factor * tensor for part, tensor in parts.items()}
    if "W" not in reply:
        return parts
    return {"R": reply["R"], "W": reply["R"] + parts["D"], "b": parts["b"]}


def poisoned(base: BaseModel, rows: Sequence[Row]) -> list[Row]:
    """The rows, and each once more with the trigger before it and the attacker's answer after it."""
    return [*rows, *triggered(base, rows)]


def triggered(base: BaseModel, rows: Sequence[Row]) -> list[Row]:
    """The rows' prompts behind the trigger, with the attacker's answer as their completion."""
    trigger, target = (tuple(base.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (TRIGGER, TARGET))
    answer = (*target, base.tokenizer.eos_token_id)
    return [Row((*row.prompt[:1], *trigger, *row.prompt[1:]), answer) for row in rows]
