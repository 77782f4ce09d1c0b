"""Stage 1: a stock Flower strategy over users, with the sampling seeded, and steps, mean and server's step ours.

The strategy is wrapped, not subclassed. A round reads:

    draw       users from (seed, round) alone, and what the stock strategy sends them
    steps      change what is sent (`Step.before_messages`)
    receive    the replies; failed ones are left out, and a round in which nobody could train ends the run
    steps      change what is averaged (`Step.after_replies`)
    average    with an average other than `fedavg`, of the users' edits here: the strategy gets one reply that holds the
               mean
    check      a mean that is not finite ends the run, and so does the edit after the step
    step       from the round's start towards the mean, where that is not the mean itself (`fed.averages.server_step`)
    record     a row of `rounds.jsonl`
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp import strategy as stock
from flwr.serverapp.strategy import Strategy

from fed.averages.robust import TooFewClients
from fed.averages.server_step import STEPPING, ServerStep, rate_of
from fed.methods.method import Method, Tensors
from fed.settings.settings import Settings
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.nodes import RunError
from server_strategy.rounds.numbers import alike, mean_loss, number_of
from server_strategy.rounds.own_edits import OwnEdits
from server_strategy.rounds.sampling import seeded
from server_strategy.rounds.screened import OnUser, Screened
from server_strategy.rounds.step import Round, Step


class TooFewReplies(RunError):
    """A round has fewer replies than it needs; it may be repeated."""


class CollectiveStrategy(Strategy):
    """A stock strategy with seeded sampling, steps, the settings' average of edits, and a record of every round.

    Args:
        inner: the stock strategy.
        method: whose edits they are; it averages them, unless `average` is "fedavg", and says how far a mean drifted.
        seed: the run's; with the number of the round it draws the users.
        average: the name of the mean, as in the settings.
        translation: between the edits and the arrays that strategies see.
        server_step: from a round's start towards its mean; None: to the mean.
        steps: what happens to messages and replies, in this order.
        min_replies: how many replies must be left to average; with fewer the run ends.
        on_round: called with each round's record.
    """

    def __init__(
        self,
        inner: Strategy,
        method: Method,
        *,
        seed: int,
        average: str,
        translation: Translation,
        server_step: ServerStep | None = None,
        steps: Sequence[Step] = (),
        min_replies: int = 1,
        on_round: Callable[[dict[str, Any]], None],
    ) -> None:
        self._inner, self._method, self._min_replies = inner, method, min_replies
        self._seed, self._average = seed, average
        self._translation, self._steps, self._on_round = translation, steps, on_round
        self.server_step = server_step
        self.attempt = 0  # of the round: 1 where it is repeated
        self._round: Round | None = None
        self._started = 0.0

    @property
    def remembering(self) -> list[object]:
        """Whatever holds arrays from one round for the next: a checkpoint keeps these (`checkpoint.memory`)."""
        return [self._inner, *self._steps, *([self.server_step] if self.server_step is not None else [])]

    def summary(self) -> None:
        self._inner.summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self._started = time.monotonic()
        self._round = Round(server_round, self._translation.from_record(arrays))
        grid.round = server_round  # type: ignore[attr-defined]  # the UserGrid's ledger entries name the round
        # Draw.
        with seeded(self._seed, server_round, self.attempt):
            messages = list(self._inner.configure_train(server_round, arrays, config, grid))
        # Steps.
        for step in self._steps:
            messages = step.before_messages(self._round, messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        assert self._round is not None and self._round.number == server_round
        # Receive.
        all_replies = list(replies)
        valid_replies = [reply for reply in all_replies if not reply.has_error()]
        failed_replies = [reply for reply in all_replies if reply.has_error()]
        if not valid_replies:
            reason = failed_replies[0].error.reason if failed_replies else "no reply came"
            raise TooFewReplies(
                f"round {server_round}: none of {len(all_replies)} users could train; the first: {reason}"
            )
        # Steps.
        replies_to_average = valid_replies
        self._check_enough(server_round, valid_replies, len(all_replies))
        for step in self._steps:
            replies_to_average = step.after_replies(self._round, replies_to_average)
            if not replies_to_average:
                raise RunError(
                    f"round {server_round}: a reply must be left to average, and the steps left none of "
                    f"{len(valid_replies)}; loosen what they leave out"
                )
            self._check_enough(server_round, replies_to_average, len(all_replies))
        # Average.
        weights = [number_of(reply, "num-examples") for reply in replies_to_average]
        loss = mean_loss(replies_to_average, weights)
        if self._average == "fedavg":
            for_inner = [*alike(replies_to_average), *failed_replies]  # it counts the failed ones in its log
        else:
            for_inner = [self._mean_reply(self._round, replies_to_average, weights, loss)]
        arrays, metrics = self._inner.aggregate_train(server_round, for_inner)
        # Check.
        drift = None
        if arrays is not None:
            edit = self._translation.from_record(arrays)  # in the strategies' dtype: FedAdam returns float64
            _check_finite(edit, server_round, "averaged", "stage1-lr")
            # Step.
            if self.server_step is not None:
                edit = self.server_step(self._round.start, edit)
                _check_finite(edit, server_round, "stepped", "server-lr")
            arrays = self._translation.to_record(edit)
            drift = self._method.drift(edit)
        # Record.
        self._on_round(
            {
                "round": server_round,
                "users": len(valid_replies),
                "failed": len(failed_replies),
                "loss": loss,
                "seconds": round(time.monotonic() - self._started, 3),
                "orthogonality_error": drift,
            }
        )
        return arrays, metrics

    def _check_enough(self, number: int, replies: Sequence[Message], asked: int) -> None:
        """Before each step, so that none keeps a reply of a round that is repeated. Raises TooFewReplies."""
        if len(replies) < self._min_replies:
            raise TooFewReplies(
                f"round {number}: min-replies = {self._min_replies} users' replies must be left to average, got "
                f"{len(replies)} of {asked}; lower min-replies, or have more users take part"
            )

    def _mean_reply(self, current: Round, replies: list[Message], weights: list[float], loss: float | None) -> Message:
        """One reply, as if of one user, that holds the method's mean of the users' edits."""
        edits = [self._translation.edit_of(reply) for reply in replies]
        try:
            mean = self._method.average(self._average, edits, weights, current.start)
        except TooFewClients as error:
            raise TooFewReplies(f"round {current.number}: {error}") from error
        except ValueError as error:
            raise RunError(f"round {current.number}: {error}") from error
        metrics = MetricRecord({"num-examples": int(sum(weights))})
        if loss is not None:
            metrics["train-loss"] = loss
        content = RecordDict({"arrays": self._translation.to_record(mean), "metrics": metrics})
        return Message(content, dst_node_id=1, message_type="train")

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return []  # users are tested once, after stage 2

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        return None


def _check_finite(edit: Tensors, number: int, what: str, key: str) -> None:
    if not all(bool(tensor.isfinite().all()) for tensor in edit.values()):
        raise RunError(f"round {number}: the {what} edit is not finite; lower {key}")


def make_strategy(
    settings: Settings,
    method: Method,
    *,
    translation: Translation,
    fraction: float | None = None,
    on_round: Callable[[dict[str, Any]], None],
    on_user: OnUser | None = None,
) -> CollectiveStrategy:
    """The settings' strategy over users, with the steps that they and the method need.

    Args:
        settings: the run's.
        method: whose edits are federated.
        translation: between these and the strategies' arrays.
        fraction: the share of users that a round asks; None: that of the settings.
        on_round: called with each round's record.
        on_user: told what screening finds of a user (`rounds.screened`).
    """
    options: dict[str, Any] = {
        "fraction_train": settings.fraction if fraction is None else fraction,
        "min_train_nodes": 1,
        "min_available_nodes": 1,
    }
    fedprox = settings.strategy == "fedprox"
    inner = stock.FedProx(proximal_mu=settings.proximal_mu, **options) if fedprox else stock.FedAvg(**options)
    rate = rate_of(settings.strategy, settings.server_lr)
    server_step = None
    if settings.strategy in STEPPING or rate != 1:
        name = "fedavg" if fedprox else settings.strategy
        server_step = ServerStep(name, rate=rate, momentum=settings.momentum)
    return CollectiveStrategy(
        inner,
        method,
        seed=settings.seed,
        average=settings.average,
        translation=translation,
        server_step=server_step,
        steps=[
            Screened(translation, bound=settings.norm_bound, on_user=on_user),
            *([OwnEdits(method, translation)] if method.keeps_own else []),
        ],
        min_replies=settings.min_replies,
        on_round=on_round,
    )
