"""Which differences between methods are real: a paired bootstrap over users.

Users are drawn with replacement, the same draw for every method and seed. A method's score of a draw is computed from
its users' additive sums (`users[].sums` of report.json), so macro-F1 and RMSE are those of the drawn users' answers
pooled, and is averaged over the method's seeds. A difference between two methods is called real where its 95 % interval
(2.5 to 97.5 percentile of the draws) leaves out zero. The interval speaks of other users, not of other training runs,
and is not corrected for how many pairs are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fed.answering.evaluation import arm_scores
from fed.lamp.tasks import Task

DRAWS = 1000
Sums = Mapping[str, Mapping[str, float]]  # user -> additive statistics of one arm


@dataclass(frozen=True)
class Difference:
    """`ours` minus `theirs` in one metric: as measured, and its interval over draws of users.

    Attributes:
        p: two-sided share of draws on the other side of zero (at least 1 / (draws + 1)).
    """

    metric: str
    value: float
    low: float
    high: float
    p: float
    users: int

    @property
    def real(self) -> bool:
        return self.low > 0 or self.high < 0


def draws_of(
    task: Task, methods: Mapping[str, Sequence[Sums]], *, draws: int = DRAWS, seed: int = 0
) -> tuple[dict[str, dict[str, np.ndarray]], int]:
    """method -> metric -> (draws + 1,) scores, the first with every user once; and how many users all have.

    Args:
        methods: method -> per seed, user -> sums.

    Raises:
        ValueError: no user is common to all methods and seeds.
    """
    users = sorted(set.intersection(*(set(sums) for seeds in methods.values() for sums in seeds)))
    if not users:
        raise ValueError("the methods of a comparison must have a tested user in common, and have none")
    counts = np.random.default_rng(seed).multinomial(len(users), np.full(len(users), 1 / len(users)), size=draws)
    weights = np.concatenate([np.ones((1, len(users))), counts.astype(float)])
    return {
        name: _mean([_scores(task, sums, users, weights) for sums in seeds]) for name, seeds in methods.items()
    }, len(users)


def _scores(task: Task, sums: Sums, users: Sequence[str], weights: np.ndarray) -> dict[str, np.ndarray]:
    keys = sorted(sums[users[0]])
    table = weights @ np.array([[sums[user][key] for key in keys] for user in users])
    rows = [arm_scores(task, [dict(zip(keys, row, strict=True))]) or {} for row in table.tolist()]
    return {metric: np.array([row[metric] for row in rows]) for metric in rows[0]}


def _mean(seeds: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {metric: np.mean([one[metric] for one in seeds], axis=0) for metric in seeds[0]}


def difference(metric: str, ours: np.ndarray, theirs: np.ndarray, users: int) -> Difference:
    """From (draws + 1,) paired scores of two methods."""
    gaps = ours - theirs
    value, drawn = float(gaps[0]), gaps[1:]
    low, high = np.percentile(drawn, [2.5, 97.5])
    other = min((drawn <= 0).mean(), (drawn >= 0).mean())
    p = min(1.0, max(2 * float(other), 1 / (len(drawn) + 1)))
    return Difference(metric, value, float(low), float(high), p, users)
