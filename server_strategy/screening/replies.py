"""What a user sends in each phase: exact records, fields, types and ranges.

    train               arrays, metrics: num-examples, train-loss
    train.pooled        the same, and users
    query.adopt         node: the fingerprint of the edit that was handed out
    train.personalize   metrics: num-examples, steps, epoch-1 …
    evaluate            metrics: <arm>/<sum>, as `fed.answering.evaluation` counts them

Counts lie within what the greeting said, which a history may have outgrown since (`grown`), and the settings. A loss
or a score may be missing, for a device may keep it. The numbers of an edit are `server_strategy.screening.arrays`'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fed.answering.evaluation import ARMS
from fed.lamp.metrics import rouge_of
from fed.lamp.tasks import Task
from fed.settings.settings import Settings
from server_strategy.screening.breach import Breach, shown
from server_strategy.screening.greeting import MOST_ROWS
from server_strategy.screening.values import fields, hexadecimal, number, whole

LARGEST_LOSS = 1e6  # nats a token
OF_GOLDS = ("tokens", "eos_tokens", "count", "cut_golds", "reachable_rougeL")  # the same in every arm of a user


def grown(rows: int) -> int:
    """The most rows of a user whose greeting said so many: a device reads a history that grows anew each time."""
    return min(2 * rows + 16, MOST_ROWS)


@dataclass(frozen=True)
class Screen:
    """What replies are held against.

    Attributes:
        settings: the run's.
        task: its LaMP task.
        stage1: user -> rows that the greeting said.
        stage2: user -> (rows, queries).
    """

    settings: Settings
    task: Task
    stage1: Mapping[str, int]
    stage2: Mapping[str, tuple[int, int]]

    def check(self, message_type: str, user: str, content: RecordDict) -> None:
        """One user's part of a reply.

        Args:
            message_type: of the request.
            user: whose.
            content: its records.
        Raises:
            Breach: one plain line, the first rule that it breaks.
        """
        _CHECKS[message_type](self, user, content)

    def _train(self, user: str, content: RecordDict) -> None:
        fields(content, "a stage-1 reply", ["arrays", "metrics"])
        values = _numbers(content["metrics"], ["num-examples"], ["train-loss"])
        whole(values["num-examples"], "num-examples", 1, self._most(self.stage1[user]))
        _loss(values, "train-loss")

    def _pooled(self, user: str, content: RecordDict) -> None:
        fields(content, "a pooled reply", ["arrays", "metrics"])
        values = _numbers(content["metrics"], ["users", "num-examples", "train-loss"])
        whole(values["users"], "users", 1, len(self.stage1))
        whole(values["num-examples"], "num-examples", 1, sum(map(self._most, self.stage1.values())))
        _loss(values, "train-loss")

    def _adopt(self, user: str, content: RecordDict) -> None:
        fields(content, "a reply to the hand-out", ["node"])
        node = content["node"]
        if not isinstance(node, ConfigRecord):
            raise Breach("node must be a ConfigRecord", shown(type(node).__name__))
        hexadecimal(fields(node, "node", ["collective"])["collective"], "the edit's fingerprint")

    def _personalize(self, user: str, content: RecordDict) -> None:
        fields(content, "a stage-2 reply", ["metrics"])
        epochs = [f"epoch-{epoch}" for epoch in range(1, self.settings.stage2_epochs + 1)]
        values = _numbers(content["metrics"], ["num-examples"], ["steps", *epochs])
        most = self._most(self.stage2[user][0])
        rows = whole(values["num-examples"], "num-examples", 0, most)
        if "steps" in values:
            steps = self.settings.stage2_epochs * math.ceil(most / self.settings.batch_size)
            whole(values["steps"], "steps", 0, steps)
        given = [epoch for epoch in epochs if epoch in values]
        if given not in ([], epochs) or (given and not rows):
            raise Breach("the losses of all epochs or of none must come, of at least one row", shown(given))
        for epoch in given:
            _loss(values, epoch)

    def _evaluate(self, user: str, content: RecordDict) -> None:
        fields(content, "a reply to the evaluation", ["metrics"])
        sums = [f"{arm}/{name}" for arm in ARMS for name in self._limits(0)]
        given = _numbers(content["metrics"], [], sums)
        queries = grown(self.stage2[user][1])
        queries = min(queries, self.settings.max_queries or queries)
        limits = self._limits(queries)
        values = {key: number(value, key, 0.0, limits[key.partition("/")[2]]) for key, value in given.items()}
        self._arms_are_whole(values)
        self._arms_agree(values)

    def _arms_are_whole(self, values: Mapping[str, float]) -> None:
        """Of an arm all sums of its losses come or none, and so of its scores."""
        names = list(self._limits(0))
        for arm in ARMS:
            for group in (names[:4], names[4:]):
                given = [name for name in group if f"{arm}/{name}" in values]
                if given and len(given) != len(group):
                    missing = next(name for name in group if name not in given)
                    raise Breach(f"{arm}/{missing} must be there where {arm}/{given[0]} is")

    def _arms_agree(self, values: Mapping[str, float]) -> None:
        """No part is more than its whole, and what is of the golds alone is the same in all arms."""
        for arm in ARMS:
            for part, whole_name in (("eos_tokens", "tokens"), ("correct", "count"), ("cut_golds", "count")):
                most = values.get(f"{arm}/{whole_name}", math.inf)
                if values.get(f"{arm}/{part}", 0.0) > most:
                    raise Breach(f"{arm}/{part} must not be more than {arm}/{whole_name}", shown(most))
        for name in OF_GOLDS:
            of_arms = {values[key] for arm in ARMS if (key := f"{arm}/{name}") in values}
            if len(of_arms) > 1:
                raise Breach(f"{name} must be the same in all arms", shown(sorted(of_arms)))

    def _limits(self, queries: int) -> dict[str, float]:
        """Every sum of an arm, and the most that it can be over so many queries."""
        s, task = self.settings, self.task
        tokens = float(queries * s.max_length)
        limits = {"nll": LARGEST_LOSS * tokens, "nll_eos": LARGEST_LOSS * queries}
        limits |= {"tokens": tokens, "eos_tokens": float(queries)}
        if not s.max_new_tokens:
            return limits
        limits["count"] = float(queries)
        if task.kind == "classification":
            counts = [f"{kind}/{label}" for label in task.labels for kind in ("hit", "gold", "predicted")]
            limits |= dict.fromkeys(["correct", *counts], float(queries))
        elif task.kind == "rating":
            limits |= {"absolute": math.inf, "squared": math.inf}
        else:
            limits |= dict.fromkeys(
                [*rouge_of(task, self.settings.rouge_tokenizer), "cut_golds", "reachable_rougeL"], float(queries)
            )
        return limits

    def _most(self, rows: int) -> int:
        """The most rows of a user whose greeting said so many."""
        return min(grown(rows), self.settings.max_items or MOST_ROWS)


def _numbers(record: object, needed: list[str], optional: list[str] | None = None) -> Mapping[str, object]:
    if not isinstance(record, MetricRecord):
        raise Breach("metrics must be a MetricRecord", shown(type(record).__name__))
    return fields(record, "metrics", needed, optional or [])


def _loss(values: Mapping[str, object], key: str) -> None:
    if key in values:
        number(values[key], key, 0.0, LARGEST_LOSS)


_CHECKS: dict[str, Callable[[Screen, str, RecordDict], None]] = {
    "train": Screen._train,
    "train.pooled": Screen._pooled,
    "query.adopt": Screen._adopt,
    "train.personalize": Screen._personalize,
    "evaluate": Screen._evaluate,
}
