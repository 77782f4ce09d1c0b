"""How large a change a user's edit is, against the round's median.

Two sizes, and a user's has to be in bound by both:

    map       ‖v − v₀‖ of what the edit does: M x + c with M = Rᵀ(W − R), c = Rᵀ b; of LoRA's adapters, B A.
              In any coordinates of R the same, so that no edit hides its size in them.
    entries   ‖θ − θ₀‖ of its numbers, which an average entry by entry sees.

The map is never made: with M − M₀ = P Q of factors, ‖P Q‖² = tr((Pᵀ P)(Q Qᵀ)).

Shapes:  L edited layers · r rank · d hidden size
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

Edit = Mapping[str, Tensor]


def outside(edits: Sequence[Edit], start: Edit, bound: float) -> dict[int, str]:
    """The places of the edits that changed more than `bound` times the median edit did, and by what: one text each.

    Args:
        edits: what users sent in a round.
        start: what the round started from.
        bound: 0 leaves all in.
    """
    reasons: dict[int, str] = {}
    if not bound:
        return reasons
    of_users = [sizes(edit, start) for edit in edits]
    for kind in of_users[0] if of_users else ():
        values = [of_user[kind] for of_user in of_users]
        middle = statistics.median(values)
        for place, value in enumerate(values):
            # An infinite size is in no bound, and where most changed nothing, so is any change.
            if not value <= bound * middle:
                times = f"{value / middle:.3g}" if middle and math.isfinite(middle) else "infinitely many"
                reasons.setdefault(
                    place,
                    f"an edit's change ({kind}) must be at most norm-bound = {bound:g} times the round's median, "
                    f"got {times} times",
                )
    return reasons


def sizes(edit: Edit, start: Edit) -> dict[str, float]:
    """{"map", "entries"} of a change, float64; without the first where the edit is no map that is known here."""
    edit = {name: tensor.double() for name, tensor in edit.items()}
    start = {name: tensor.double() for name, tensor in start.items()}
    found = {}
    if {"R", "W", "b"} <= edit.keys() and {"R", "W", "b"} <= start.keys():
        found["map"] = _loreft(edit, start)
    elif adapters := [name for name in edit if ".lora_A." in name and name.replace(".lora_A.", ".lora_B.") in edit]:
        found["map"] = _lora(edit, start, adapters)
    if all(edit[name].shape == start[name].shape for name in edit if name in start):
        found["entries"] = _root(sum(float((edit[name] - start[name]).square().sum()) for name in edit))
    return found


def _loreft(edit: Edit, start: Edit) -> float:
    P = torch.cat([edit["R"], start["R"]], dim=1)  # (L, 2 r, d), Pᵀ of the factors
    Q = torch.cat([edit["W"] - edit["R"], start["R"] - start["W"]], dim=1)  # (L, 2 r, d)
    c = (edit["b"].unsqueeze(-2) @ edit["R"] - start["b"].unsqueeze(-2) @ start["R"]).squeeze(-2)  # (L, d)
    return _root(float(((P @ P.mT) * (Q @ Q.mT)).sum() + c.square().sum()))


def _lora(edit: Edit, start: Edit, adapters: Sequence[str]) -> float:
    square = 0.0
    for name in adapters:
        other = name.replace(".lora_A.", ".lora_B.")
        P = torch.cat([edit[other], start[other]], dim=1)  # (out, 2 r)
        Q = torch.cat([edit[name], -start[name]])  # (2 r, in)
        square += float(((P.mT @ P) * (Q @ Q.mT)).sum())
    return _root(square)


def _root(square: float) -> float:
    """Of a sum that rounding may have made negative; infinite where it overflowed."""
    return math.sqrt(max(0.0, square)) if math.isfinite(square) else math.inf
