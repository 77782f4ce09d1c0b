"""Stage 1: any stock Flower strategy over users, with the sampling seeded and the mean of edits ours.

The strategy is wrapped, not subclassed. Each round draws its users from (seed, round) alone. With an average other
than `fedavg`, the wrapper averages the users' edits itself and hands the strategy one reply that holds the mean; what
the strategy does with a mean (take it, or step towards it as FedAdam does) stays its own affair.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as stock
from flwr.serverapp.strategy import Strategy

from fed.methods.method import Method, Tensors
from fed.settings.settings import Settings
from server_strategy.grid.nodes import RunError
from server_strategy.grid.translation import Translation
from server_strategy.rounds.sampling import seeded

_STOCK: dict[str, type[Any]] = {
    "fedavg": stock.FedAvg,
    "fedavgm": stock.FedAvgM,
    "fedadam": stock.FedAdam,
    "fedadagrad": stock.FedAdagrad,
    "fedyogi": stock.FedYogi,
    "fedprox": stock.FedProx,
    "fedmedian": stock.FedMedian,
    "fedtrimmedavg": stock.FedTrimmedAvg,
    "krum": stock.Krum,
    "multikrum": stock.MultiKrum,
    "bulyan": stock.Bulyan,
}


def _metric(reply: Message, name: str) -> float:
    value = reply.content.metric_records["metrics"][name]
    assert isinstance(value, int | float)
    return float(value)


class CollectiveStrategy(Strategy):
    """A stock strategy with seeded sampling, the chosen average of edits, and a record of every round."""

    def __init__(
        self,
        inner: Strategy,
        method: Method,
        settings: Settings,
        translation: Translation,
        on_round: Callable[[dict[str, Any]], None],
    ) -> None:
        self._inner, self._method, self._settings, self._on_round = inner, method, settings, on_round
        self._wire = translation
        self._before: ArrayRecord | None = None
        self._latest: dict[Hashable, Tensors] = {}  # what each user sent last, for a method that sends each its own
        self._started = 0.0

    def summary(self) -> None:
        self._inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._before, self._started = arrays, time.monotonic()
        grid.round = server_round  # type: ignore[attr-defined]  # the UserGrid's ledger entries name the round
        with seeded(self._settings.seed, server_round):
            messages = list(self._inner.configure_train(server_round, arrays, config, grid))
        if self._latest:
            users = [message.metadata.dst_node_id for message in messages]
            own = self._method.for_each(users, self._latest, self._wire.from_record(arrays))
            for message, user in zip(messages, users, strict=True):
                if user in own:
                    message.content = RecordDict({**message.content, "arrays": self._wire.to_record(own[user])})
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        replies = list(replies)
        good = [reply for reply in replies if not reply.has_error()]
        if not good:
            reason = replies[0].error.reason if replies else "no reply came"
            raise RunError(f"round {server_round}: none of {len(replies)} users could train; the first: {reason}")
        weights = [_metric(reply, "num-examples") for reply in good]
        loss = math.fsum(w * _metric(reply, "train-loss") for w, reply in zip(weights, good, strict=True)) / math.fsum(
            weights
        )
        if self._method.keeps_own:
            self._latest |= {
                reply.metadata.src_node_id: self._wire.from_record(reply.content.array_records["arrays"])
                for reply in good
            }
        averaged = replies
        if self._settings.average != "fedavg":
            assert self._before is not None
            mean = self._method.average(
                self._settings.average,
                [self._wire.from_record(reply.content.array_records["arrays"]) for reply in good],
                weights,
                self._wire.from_record(self._before),
            )
            metrics = MetricRecord({"num-examples": int(sum(weights)), "train-loss": loss})
            content = RecordDict({"arrays": self._wire.to_record(mean), "metrics": metrics})
            averaged = [Message(content, dst_node_id=1, message_type="train")]
        arrays, metrics_out = self._inner.aggregate_train(server_round, averaged)
        if arrays is not None:
            arrays = self._wire.to_record(self._wire.from_record(arrays))
            if not all(bool(t.isfinite().all()) for t in self._wire.from_record(arrays).values()):
                raise RunError(f"round {server_round}: the averaged edit is not finite; lower stage1-lr")
        self._on_round(
            {
                "round": server_round,
                "users": len(good),
                "failed": len(replies) - len(good),
                "loss": loss,
                "seconds": round(time.monotonic() - self._started, 3),
                "orthogonality_error": self._method.drift(self._wire.from_record(arrays)) if arrays else None,
            }
        )
        return arrays, metrics_out

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return []  # users are tested once, after stage 2

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return None


def make_strategy(
    settings: Settings, method: Method, translation: Translation, on_round: Callable[[dict[str, Any]], None]
) -> CollectiveStrategy:
    """The settings' strategy over users."""
    options: dict[str, Any] = {
        "fraction_train": settings.fraction,
        "min_train_nodes": 1,
        "min_available_nodes": 1,
    }
    inner = _STOCK[settings.strategy](**options)
    return CollectiveStrategy(inner, method, settings, translation, on_round)
