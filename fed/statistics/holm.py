"""Holm's correction (1979): p values of a family, such that a false alarm anywhere in it keeps its 5 %.

    sorted p₍₁₎ ≤ … ≤ p₍ₘ₎:   p'₍ₖ₎ = max over j ≤ k of min(1, (m − j + 1) · p₍ⱼ₎)

It holds whatever the tests have to do with each other, and is never below Bonferroni's in what it finds.
"""

from __future__ import annotations

from collections.abc import Sequence


def corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """The family's corrected p values in the order given; what has none (None) counts for nothing."""
    known = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    family: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for step, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - step) * p))
        family[place] = largest
    return family
