"""The cells' reports put together: PerFit's tables 2, 3 and 4 as rows, and the differences between methods.

    table 2   what everybody shares: the arm `stage1` of methods that federate
    table 3   personalized: the arm `stage1+2` of methods with private tensors
    table 4   PerFit beside its halves and beside one ReFT of the same ranks: their last arm

Methods that train nothing (only their prompts differ) stand in tables 2 and 3 for comparison. A row has, per metric,
the mean and the sample standard deviation over seeds; the parameters of its stage, their percent of the base model, and
how many fewer they are than OPPU's of the same stage.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fed.answering import comparisons
from fed.answering.evaluation import ARMS, Report, last_arm
from fed.base.skeleton import skeleton
from fed.communication.costs import cost
from fed.lamp.tasks import Task, get_task

Row = dict[str, Any]
Sums = dict[str, Mapping[str, float]]  # user -> additive statistics of one arm
TITLES = {
    2: "Table 2. What everybody shares (stage 1)",
    3: "Table 3. Personalized (stage 1 + 2)",
    4: "Table 4. PerFit, its halves, and one ReFT of the same ranks",
}
LOREFT = ("perfit", "reft", "fedreft")  # the beginnings of the names of table 4's methods


def arm_in(table: int, label: str, report: Report) -> str | None:
    """The arm that stands for a method in a table; None where it has no place there."""
    parameters = report["parameters"]
    if table == 4:
        return last_arm(report) if label.startswith(LOREFT) else None
    if not parameters["stage1"] and not parameters["stage2"]:
        return last_arm(report)
    arm, stage = {2: ("stage1", "stage1"), 3: ("stage1+2", "stage2")}[table]
    return arm if parameters[stage] and report["arms"][arm] is not None else None


def rows(reports: Mapping[tuple[str, str], Sequence[Report]]) -> list[Row]:
    """One row per table, task and method.

    Args:
        reports: (task, method) -> a report per seed.
    """
    table_rows = []
    for table in TITLES:
        for (task, label), seeds in reports.items():
            arm = arm_in(table, label, seeds[0])
            if arm is None:
                continue
            first = seeds[0]
            parameters = {2: first["parameters"]["stage1"], 3: first["parameters"]["stage2"]}.get(
                table, first["parameters"]["stage1"] + first["parameters"]["stage2"]
            )
            oppu = cost("oppu", skeleton(first["settings"]["base-model"]))
            theirs = {2: oppu.federated_parameters, 3: oppu.private_parameters}.get(
                table, oppu.federated_parameters + oppu.private_parameters
            )
            metrics = ("loss_per_token", *get_task(task).metrics)
            table_rows.append(
                {
                    "table": table,
                    "task": task,
                    "method": label,
                    "arm": arm,
                    "seeds": [report["seed"] for report in seeds],
                    "scores": {m: spread([report["arms"][arm].get(m) for report in seeds]) for m in metrics},
                    "parameters": parameters,
                    "percent_of_base": 100 * parameters / first["parameters"]["base"],
                    "less_than_oppu_percent": 100 * (1 - parameters / theirs) if parameters else None,
                    "payload_bytes": spread([payload(report) for report in seeds]),
                    "seconds": spread([report["seconds"].get("total") for report in seeds]),
                }
            )
    return table_rows


def payload(report: Report) -> int:
    """All tensor bytes of a run, both ways."""
    return sum(int(way["payload"]) for phase in report["bytes"].values() for way in phase.values())


def spread(values: Sequence[float | None]) -> dict[str, float | None]:
    """Mean and sample standard deviation over seeds; no deviation of one seed, nothing where a value is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) != len(values):
        return {"mean": None, "sd": None}
    return {"mean": statistics.fmean(known), "sd": statistics.stdev(known) if len(known) > 1 else None}


def differences(
    reports: Mapping[tuple[str, str], Sequence[Report]], against: str, interval: str = "t"
) -> list[dict[str, Any]]:
    """Per task, the last arm of `against` minus each other method's, and minus its own other arms (base, swapped, …).

    A user's value is its mean over a method's seeds, so an interval speaks of other users, not of other training runs.
    The comparisons of a task are one family (`fed.answering.comparisons`); `real`: told apart there.

    Args:
        reports: (task, method) -> a report per seed.
        against: the method whose differences to the others are tested.
        interval: t or bca.

    Raises:
        ValueError: no user is common to all methods and seeds of a task.
    """
    gaps = []
    for task in dict.fromkeys(task for task, _ in reports):
        methods = {
            label: _sums(seeds, last_arm(seeds[0])) for (other, label), seeds in reports.items() if other == task
        }
        if against not in methods:
            continue
        own = reports[task, against]
        for arm in ARMS:
            sums = _sums(own, arm) if arm != last_arm(own[0]) else []
            # An arm that some users lack would leave them out of every other difference.
            if sums and all(set(a) == set(b) for a, b in zip(sums, methods[against], strict=True)):
                methods[f"{against}, {arm}"] = sums
        values = _user_values(get_task(task), methods)
        pairs = [(label, m) for label in values if label != against for m in values[label] if m in values[against]]
        family = comparisons.corrected(
            [comparisons.compare(m, values[against][m] - values[label][m], interval) for label, m in pairs]
        )
        gaps += [
            {"task": task, "ours": against, "theirs": label, "metric": gap.metric, "value": gap.difference}
            | {key: getattr(gap, key) for key in ("low", "high", "p", "p_raw", "p_sign_flip", "users")}
            | {"real": gap.told_apart}
            for (label, _), gap in zip(pairs, family, strict=True)
        ]
    return gaps


def _sums(seeds: Sequence[Report], arm: str) -> list[Sums]:
    return [{u["user_id"]: u["sums"][arm] for u in report["users"] if arm in u["sums"]} for report in seeds]


def _user_values(task: Task, methods: Mapping[str, Sequence[Sums]]) -> dict[str, dict[str, np.ndarray]]:
    """method -> metric -> (users,) values, means over seeds, of the users that all methods and seeds have."""
    users = sorted(set.intersection(*(set(sums) for seeds in methods.values() for sums in seeds)))
    if not users:
        raise ValueError("the methods of a comparison must have a tested user in common, and have none")
    values = {}
    for label, seeds in methods.items():
        of_seeds = [comparisons.user_values(task, [sums[user] for user in users]) for sums in seeds]
        values[label] = {metric: np.mean([one[metric] for one in of_seeds], axis=0) for metric in of_seeds[0]}
    return values
