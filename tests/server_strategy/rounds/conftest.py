"""Rounds of stage 1 with canned replies: users a, b, c and d answer with edits and losses that a test made up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from fed import methods
from fed.base.skeleton import Skeleton
from fed.communication.ledger import Ledger
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.user_grid import UserGrid
from server_strategy.rounds.strategy import CollectiveStrategy, make_strategy

USERS = ("a", "b", "c", "d")


@dataclass
class Rounds:
    """A strategy, and the users' side of it.

    Attributes:
        strategy: of all four users in every round.
        start: the edit that every round starts from.
        translation: between edits and arrays.
        rows: what the strategy recorded.
    """

    strategy: CollectiveStrategy
    start: dict[str, torch.Tensor]
    translation: Translation
    rows: list[dict] = field(default_factory=list)

    def messages(self, number: int = 1) -> list[Message]:
        """What the users are sent in this round, by user."""
        grid = UserGrid(None, dict.fromkeys(USERS, 1000), translation=self.translation, ledger=Ledger())
        arrays = self.translation.to_record(self.start)
        messages = self.strategy.configure_train(number, arrays, ConfigRecord(), grid)
        return sorted(messages, key=lambda message: message.metadata.dst_node_id)

    def reply(self, message: Message, edit: dict | None, *, examples: int = 1, loss: float = 1.0) -> Message:
        """A user's reply; one without an edit says that training failed."""
        if edit is None:
            return Message(Error(100, "the loss is nan"), reply_to=message)
        metrics = MetricRecord({"num-examples": examples, "train-loss": loss})
        return Message(RecordDict({"arrays": self.translation.to_record(edit), "metrics": metrics}), reply_to=message)

    def mean(self, edits: list, number: int = 1, *, examples=(1, 1, 1, 1), losses=(1.0, 1.0, 1.0, 1.0)) -> dict:
        """The edit that this round's strategy makes of the users' edits."""
        users = zip(self.messages(number), edits, examples, losses, strict=True)
        replies = [self.reply(message, edit, examples=n, loss=loss) for message, edit, n, loss in users]
        arrays, _ = self.strategy.aggregate_train(number, replies)
        return self.translation.from_record(arrays)


@pytest.fixture
def rounds(settings):
    """rounds(steps=…, average="svd", method="perfit") -> Rounds."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1

    def make(*, steps=(), average: str = "svd", method: str = "perfit") -> Rounds:
        made = methods.make(settings(method=method, average=average), Skeleton("tiny", 0, 32, 4, ()))
        translation = Translation(made.collective_shapes(), "float32")
        record: list[dict] = []
        steps = steps(made, translation) if callable(steps) else steps
        inner = FedAvg(fraction_train=1.0, min_train_nodes=1, min_available_nodes=1)
        strategy = CollectiveStrategy(
            inner, made, seed=0, average=average, translation=translation, steps=steps, on_round=record.append
        )
        return Rounds(strategy, made.initial_collective(), translation, record)

    return make


@pytest.fixture
def rounds_of(settings):
    """rounds_of("fedadam", "svd") -> Rounds of a run's own strategy, every user in every round."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1

    def make(strategy: str, average: str, on_user=None, **changes: object) -> Rounds:
        run = settings(strategy=strategy, average=average, fraction=1.0, **changes)
        made = methods.make(run, Skeleton("tiny", 0, 32, 4, ()))
        translation = Translation(made.collective_shapes(), "float32")
        record: list[dict] = []
        wrapped = make_strategy(run, made, translation=translation, on_round=record.append, on_user=on_user)
        return Rounds(wrapped, made.initial_collective(), translation, record)

    return make


@pytest.fixture
def edits(random_bank):
    """Four users' edits, as training leaves them."""
    return [random_bank(1, rank=3, seed=seed, dtype=torch.float32).tensors(0) for seed in range(4)]
