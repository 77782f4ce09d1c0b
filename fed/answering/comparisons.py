"""Which arms or methods differ: one difference a user, its mean over users, an interval, and p.

A user is the unit: its queries resemble each other, so they are no independent witnesses. Compared is therefore the
**mean over users of each user's difference** in a metric (its own loss per token, accuracy, MAE, ROUGE), where every
user counts the same. The arms' scores beside it are pooled, so that a user with longer texts or more queries counts
more: a comparison's difference is not quite that of the two scores.

Macro-F1 and RMSE have no value of one user (F1 is over all labels; a mean of roots is no root of a mean). They are
compared as pooled, and the jackknife over users (Tukey, 1958) gives what stands for a user's difference, with θ the
pooled score and θ₋ᵢ that without user i:

    dᵢ = θ + (n − 1) (mean_j θ₋ⱼ − θ₋ᵢ)        mean d = θ

Two equal arms were told apart in 3 to 7 % of simulated cases by it, in place of 5 (5 to 20 users, 2 or 10 queries each,
users of unlike difficulty), so a p of these two just below 0.05 says little.

A comparison of several pairs is a family: p is Holm's over the pairs of one metric. Metrics are not corrected for each
other: the loss on the golds' tokens is the one to decide by, the others say how it shows in the answers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fed.answering.evaluation import arm_scores
from fed.lamp import metrics
from fed.lamp.tasks import Task
from fed.statistics import bca, holm, paired_t, sign_flip

Sums = Mapping[str, float]  # one user's additive statistics of one arm
Values = NDArray[np.float64]

# (a, b): b is meant to be the better, but for swapped, which is meant to be the worse
PAIRS = (("base", "stage1"), ("stage1", "stage1+2"), ("base", "stage1+2"), ("stage1+2", "swapped"))
POOLED = ("f1", "rmse")  # metrics without a value of one user
ALPHA = 0.05  # false alarms allowed to a family
INTERVALS: dict[str, Callable[[Values], tuple[float, float]]] = {"t": paired_t.interval, "bca": bca.interval}


@dataclass(frozen=True)
class Comparison:
    """The mean over users of a difference in one metric.

    Attributes:
        metric: its key.
        difference: the mean.
        low, high: its 95 % interval, taken alone; None for one user, or where a difference is not finite.
        p: two-sided, corrected over the family it stands in; None as the interval is.
        p_raw: before the correction, of the same test as the interval (t; sign flips for a bootstrap).
        p_sign_flip: that of the sign-flip test, uncorrected.
        users: how many.
    """

    metric: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_raw: float | None
    p_sign_flip: float | None
    users: int

    @property
    def told_apart(self) -> bool:
        return told_apart(self.low, self.high, self.p)


def told_apart(low: float | None, high: float | None, p: float | None) -> bool:
    """The interval leaves out zero, and p is below 5 % after the correction; never without an interval."""
    if low is None or high is None or p is None:
        return False
    return p < ALPHA and (low > 0 or high < 0)


def user_values(task: Task, users: Sequence[Sums]) -> dict[str, Values]:
    """metric -> (users,) values whose mean is the score to compare: each user's own, or for `POOLED` the jackknife's.

    users: at least one, each with tokens.
    """
    own = [arm_scores(task, [sums]) or {} for sums in users]
    total = metrics.merge(users)
    whole = arm_scores(task, [total]) or {}
    values = {metric: np.array([scores[metric] for scores in own]) for metric in whole}
    pooled = [metric for metric in POOLED if metric in whole]
    if pooled:
        # Squares left over where a user's are taken away must not be negative by rounding.
        rests = [{key: max(0.0, total[key] - value) for key, value in sums.items()} for sums in users]
        for metric in pooled:
            without = [(arm_scores(task, [rest]) or {}).get(metric, whole[metric]) for rest in rests]
            values[metric] = whole[metric] + (len(users) - 1) * (np.mean(without) - np.array(without))
    return values


def compare(metric: str, differences: Values, interval: str = "t") -> Comparison:
    """One comparison, not corrected yet (p = p_raw).

    Args:
        metric: its key.
        differences: (n,) one a user, at least one.
        interval: a key of `INTERVALS`; a bootstrap's p is that of the sign-flip test.
    """
    users, mean = len(differences), float(differences.mean())
    if users < 2 or not math.isfinite(mean):
        return Comparison(metric, mean, None, None, None, None, None, users)
    low, high = INTERVALS[interval](differences)
    flipped = float(sign_flip.p_value(differences))
    # Where users do not differ among each other there is no t, and only the number of users speaks.
    p = paired_t.p_value(differences) if interval == "t" else None
    p = flipped if p is None else p
    return Comparison(metric, mean, float(low), float(high), p, p, flipped, users)


def corrected(family: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons of a family with Holm's p, over those of each metric apart."""
    places: dict[str, list[int]] = {}
    for place, comparison in enumerate(family):
        places.setdefault(comparison.metric, []).append(place)
    p_of: dict[int, float | None] = {}
    for those in places.values():
        p_of |= zip(those, holm.corrected([family[place].p_raw for place in those]), strict=True)
    return [dataclasses.replace(comparison, p=p_of[place]) for place, comparison in enumerate(family)]


def of_arms(task: Task, users: Mapping[str, Mapping[str, Sums]]) -> list[dict[str, Any]]:
    """The comparisons of a run's arms, for report.json: a row for each of `PAIRS` and metric that two arms have.

    Args:
        task: whose metrics.
        users: user -> arm -> additive statistics.

    Returns:
        Rows of a, b, metric, difference (b minus a), low, high, p, p_raw, p_sign_flip, users. A pair's users are those
        who have both arms. p is Holm's over all pairs of the metric.
    """
    known: dict[tuple[str, tuple[str, ...]], dict[str, Values]] = {}

    def values(arm: str, those: tuple[str, ...]) -> dict[str, Values]:
        if (arm, those) not in known:
            known[arm, those] = user_values(task, [users[user][arm] for user in those])
        return known[arm, those]

    pairs, family = [], []
    for a, b in PAIRS:
        both = tuple(user for user in sorted(users) if all(users[user].get(arm, {}).get("tokens") for arm in (a, b)))
        if both:
            before, after = values(a, both), values(b, both)
            for metric in before:
                pairs.append((a, b))
                family.append(compare(metric, after[metric] - before[metric]))
    rows = zip(pairs, corrected(family), strict=True)
    return [{"a": a, "b": b, **dataclasses.asdict(comparison)} for (a, b), comparison in rows]
