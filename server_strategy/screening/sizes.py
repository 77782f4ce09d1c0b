"""How large a change a user's edit is, against the round's median.

Two sizes, and a user's has to be in bound by both:

    map       ‖v − v₀‖ of what the edit does: M x + c with M = Rᵀ(W − R), c = Rᵀ b; of LoRA's adapters, B A.
              In any coordinates of R the same, so that no edit hides its size in them.
    entries   ‖θ − θ₀‖ of its numbers, which an average entry by entry sees.

The map is never made (`fed.edits.maps`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping

from torch import Tensor

from fed.edits.maps import distance_of_adapters, distance_of_edits, root

Edit = Mapping[str, Tensor]


def outside(edits: Iterable[Edit], start: Edit, bound: float) -> dict[int, str]:
    """The places of the edits that changed more than `bound` times the median edit did, and by what: one text each.

    Args:
        edits: what users sent in a round; one is held at a time.
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
        found["map"] = distance_of_edits(edit, start)
    elif any(".lora_A." in name and name.replace(".lora_A.", ".lora_B.") in edit for name in edit):
        found["map"] = distance_of_adapters(edit, start)
    if all(edit[name].shape == start[name].shape for name in edit if name in start):
        found["entries"] = root(sum(float((edit[name] - start[name]).square().sum()) for name in edit))
    return found
