"""How far the scores of two runs differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def scores(report: dict[str, Any]) -> dict[tuple[str, str, str], float]:
    """(who, arm, metric) -> score; who is a user's id, or "all users". Arms that are null are left out.

    Raises:
        ValueError: it is no report.json.
    """
    try:
        whole = [("all users", report["arms"]), *((user["user_id"], user["arms"]) for user in report["users"])]
    except KeyError as missing:
        raise ValueError(f"a report.json must have arms, and users with theirs, and one has no {missing}") from None
    return {
        (who, arm, metric): value
        for who, arms in whole
        for arm, metrics in arms.items()
        if metrics is not None
        for metric, value in metrics.items()
    }


def in_both(
    first: dict[tuple[str, str, str], float], second: dict[tuple[str, str, str], float]
) -> tuple[dict[tuple[str, str, str], float], dict[tuple[str, str, str], float], list[str]]:
    """Both without the arms and metrics that one of them lacks, such as `swapped` where nodes host one user, or a
    metric that reports did not have yet; and the names of these.
    """
    arms, metrics = ([{key[place] for key in report_scores} for report_scores in (first, second)] for place in (1, 2))
    odd = sorted((arms[0] ^ arms[1]) | (metrics[0] ^ metrics[1]))
    shared = [
        {key: value for key, value in report_scores.items() if not {key[1], key[2]} & set(odd)}
        for report_scores in (first, second)
    ]
    return shared[0], shared[1], odd


def differences(
    first: dict[tuple[str, str, str], float], second: dict[tuple[str, str, str], float]
) -> Iterator[tuple[str, str, str, float, float, float]]:
    """Per arm and metric: arm, metric, who differs most, both values, and |a − b| / max(|a|, |b|).

    Raises:
        ValueError: the reports hold different users, arms or metrics.
    """
    if first.keys() != second.keys():
        odd = sorted({who for who, _, _ in first.keys() ^ second.keys()})
        raise ValueError(f"the reports must hold the same users, arms and metrics; they part at {', '.join(odd[:5])}")
    groups: dict[tuple[str, str], list[str]] = {}
    for who, arm, metric in first:
        groups.setdefault((arm, metric), []).append(who)
    for (arm, metric), people in groups.items():
        pairs = ((who, first[who, arm, metric], second[who, arm, metric]) for who in people)
        yield (arm, metric, *max(((*p, relative(p[1], p[2])) for p in pairs), key=lambda pair: pair[3]))


def relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0
