"""The cells' reports put together: PerFit's tables 2, 3 and 4 as rows, and the differences between methods.

    table 2   the tasks that are answered by labels (LaMP-2N, 2M, 3), both stages in it
    table 3   the tasks that are answered by texts (LaMP-4, 5, 7), both stages in it
    table 4   PerFit beside its halves, one ReFT of the same ranks, and LoRA-P as the reference: their last arm

In tables 2 and 3 a method has a row a stage: what everybody shares (the arm `stage1` of methods that federate) and what
is personalized (`stage1+2` of methods with private tensors). Methods that train nothing (only their prompts differ)
have one, of no stage. A row has, per metric, the mean and the sample standard deviation over seeds; the parameters of
its stage, their percent of the base model, and how many fewer they are than OPPU's of the same stage; for its arm, the
percent of the base that its stages train together, and the seconds that they took.
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
from fed.settings.paths import base_source

Row = dict[str, Any]
Sums = dict[str, Mapping[str, float]]  # user -> additive statistics of one arm
TITLES = {
    2: "Table 2. Classification and rating (LaMP-2N, 2M, 3)",
    3: "Table 3. Generation (LaMP-4, 5, 7)",
    4: "Table 4. PerFit, its halves, one ReFT of the same ranks; LoRA-P as the reference",
}
ABLATION = ("perfit", "perfit-stage1", "reft-p", "reft-cp", "lora-p")  # table 4's methods, in its order
STAGES = ("nothing trained", "stage 1", "stage 1 + 2", "last arm")  # in the order of a table's rows


def table_of(task: Task) -> int:
    """The paper's table that the task stands in: 3 where answers are texts, else 2."""
    return 3 if task.kind == "generation" else 2


def arms_in(table: int, label: str, report: Report) -> dict[str, str]:
    """stage, of `STAGES` -> the arm that stands for a method there; empty where it has no place in the table.

    Args:
        table: of `TITLES`, one that the task belongs to.
        label: the method as the comparison names it, with settings of its own after a colon.
        report: of one of its runs.
    """
    parameters = report["parameters"]
    if table == 4:
        return {"last arm": last_arm(report)} if label.partition(":")[0] in ABLATION else {}
    if not parameters["stage1"] and not parameters["stage2"]:
        return {"nothing trained": last_arm(report)}
    trained = {"stage 1": ("stage1", "stage1"), "stage 1 + 2": ("stage1+2", "stage2")}
    return {
        stage: arm
        for stage, (arm, tensors) in trained.items()
        if parameters[tensors] and report["arms"][arm] is not None
    }


def rows(reports: Mapping[tuple[str, str], Sequence[Report]]) -> list[Row]:
    """One row per table, task, stage and method.

    Args:
        reports: (task, method) -> a report per seed.
    """
    table_rows = [
        _row(table, stage, arm, task, label, seeds)
        for (task, label), seeds in reports.items()
        for table in (table_of(get_task(task)), 4)
        for stage, arm in arms_in(table, label, seeds[0]).items()
    ]
    tasks = list(dict.fromkeys(task for task, _ in reports))

    def place(row: Row) -> tuple[int, ...]:
        method = ABLATION.index(row["method"].partition(":")[0]) if row["table"] == 4 else 0
        return row["table"], tasks.index(row["task"]), STAGES.index(row["stage"]), method

    return sorted(table_rows, key=place)


def _row(table: int, stage: str, arm: str, task: str, label: str, seeds: Sequence[Report]) -> Row:
    first = seeds[0]
    oppu = cost("oppu", skeleton(base_source(first["settings"]["base-model"])))
    every = {
        "stage 1": (first["parameters"]["stage1"], oppu.federated_parameters),
        "stage 1 + 2": (first["parameters"]["stage2"], oppu.private_parameters),
    }
    both = (
        first["parameters"]["stage1"] + first["parameters"]["stage2"],
        oppu.federated_parameters + oppu.private_parameters,
    )
    parameters, theirs = every.get(stage, both)
    base = first["parameters"]["base"]
    before = {"base": (), "stage1": ("stage 1",)}.get(arm, every)  # the stages that the arm rests on
    metrics = ("loss_per_token", *get_task(task).metrics)
    return {
        "table": table,
        "task": task,
        "method": label,
        "stage": stage,
        "arm": arm,
        "seeds": [report["seed"] for report in seeds],
        "scores": {m: spread([report["arms"][arm].get(m) for report in seeds]) for m in metrics},
        "parameters": parameters,
        "percent_of_base": 100 * parameters / base,
        "trained_percent_of_base": 100 * sum(numbers for numbers, _ in (every[name] for name in before)) / base,
        "less_than_oppu_percent": 100 * (1 - parameters / theirs) if parameters else None,
        "payload_bytes": spread([payload(report) for report in seeds]),
        "seconds": spread([report["seconds"].get("total") for report in seeds]),
        "training_seconds": spread([training_seconds(report, arm) for report in seeds]),
    }


def training_seconds(report: Report, arm: str) -> float:
    """Seconds of the stages that an arm rests on: none of the base's."""
    seconds = report["seconds"]
    stages = {"base": (), "stage1": ("stage1",)}.get(arm, ("stage1", "stage2"))
    return float(sum(seconds.get(stage) or 0.0 for stage in stages))


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
