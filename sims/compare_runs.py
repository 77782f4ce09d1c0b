"""Do two runs agree?  `python sims/compare_runs.py A/report.json B/report.json [--within 0.005]`

Prints the largest relative difference of every arm's and every user's scores, and whether `arms` are equal bit for bit.
Exits 1 where a loss differs by more than `--within` (a share of the loss; 0, the default, asks for equal bits), 2
where the reports do not describe the same users and arms.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def scores(report: dict[str, Any]) -> dict[tuple[str, str, str], float]:
    """(who, arm, metric) -> score; who is a user's id, or "all users". Arms that are null are left out."""
    whole = [("all users", report["arms"]), *((user["user_id"], user["arms"]) for user in report["users"])]
    return {
        (who, arm, metric): value
        for who, arms in whole
        for arm, found in arms.items()
        if found is not None
        for metric, value in found.items()
    }


def in_both(
    first: dict[tuple[str, str, str], float], second: dict[tuple[str, str, str], float]
) -> tuple[dict[tuple[str, str, str], float], dict[tuple[str, str, str], float], list[str]]:
    """Both without the arms that one of them lacks, such as `swapped` where nodes host one user; and these arms."""
    arms = [{arm for _, arm, _ in found} for found in (first, second)]
    odd = sorted(arms[0] ^ arms[1])
    kept = [{key: value for key, value in found.items() if key[1] not in odd} for found in (first, second)]
    return kept[0], kept[1], odd


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
        yield (arm, metric, *max(((*p, _relative(p[1], p[2])) for p in pairs), key=lambda found: found[3]))


def _relative(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), abs(b)) if a != b else 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare the scores of two runs' report.json.")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--within", type=float, default=0.0, help="largest share by which a loss may differ")
    chosen = parser.parse_args()
    try:
        first, second = (scores(json.loads(path.read_text())) for path in (chosen.first, chosen.second))
        first, second, odd = in_both(first, second)
        rows = list(differences(first, second))
        if not rows:
            raise ValueError("the reports have no arm in common")
    except (OSError, KeyError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    table = Table("arm", "metric", "differs most", "first", "second", "relative difference", "over all users")
    for arm, metric, who, a, b, share in rows:
        whole = _relative(first["all users", arm, metric], second["all users", arm, metric])
        shares = (f"{x:.1e}" if x else "0" for x in (share, whole))
        table.add_row(arm, metric, who, f"{a:.6f}", f"{b:.6f}", *shares)
    Console().print(table)
    if odd:
        print(f"only in one of the reports, and not compared: {', '.join(odd)}")
    print("arms and users' scores are " + ("equal, bit for bit" if first == second else "not equal bit for bit"))
    worst = max(share for _, metric, _, _, _, share in rows if metric == "loss_per_token")
    return int(worst > chosen.within)


if __name__ == "__main__":
    sys.exit(main())
