"""What a personalization method is: what it federates, what stays private, how it trains and how it edits rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.answering.reader import Question, Reader
from fed.averages import average
from fed.base.model import BaseModel
from fed.base.skeleton import Skeleton
from fed.communication.costs import Cost
from fed.forward.batching import Row
from fed.randomness import generator
from fed.settings.settings import Settings
from fed.training.plan import TrainSettings, UserResult

Tensors = dict[str, Tensor]
Progress = Callable[[int, int, float], None]  # (step, steps, loss); a loss of nan where a step has none


@dataclass(frozen=True)
class UserRows:
    """One user's rows to train on.

    Attributes:
        given, own: where the method keeps them (`Method.keeps_own`), what the server sent this user, and the tensors
        that the user itself trained last; None where it has not yet.
    """

    user_id: str
    rows: Sequence[Row]
    given: Tensors | None = None
    own: Tensors | None = None


@dataclass(frozen=True)
class LocalTraining:
    """What a node trains at one time.

    Attributes:
        base: the frozen base model that all users share.
        users: whose rows to train on.
        plan: how the stage trains.
        draw_name: names the generator of a user's minibatches together with the user: (seed, stage), the round too.
        progress: told step by step.
    """

    base: BaseModel
    users: Sequence[UserRows]
    plan: TrainSettings
    draw_name: tuple[int, *tuple[object, ...]]
    progress: Progress | None = None

    def draw(self, user: UserRows) -> torch.Generator:
        """The generator of this user's minibatches."""
        return generator(*self.draw_name, user.user_id)


@dataclass(frozen=True)
class Trained:
    """One user's tensors after local training, and what the training did."""

    user_id: str
    tensors: Tensors
    result: UserResult


@dataclass(frozen=True)
class LoReFTKeys:
    """Where a method's LoReFT edits apply, as the run config says it: what other software has to be told of them.

    The collective edit, if there is one, is at the blocks of `layers` and the tokens of `positions`.

    Attributes:
        blocks, positions: the keys of the private edit's blocks and tokens.
        replaces: a user's private edit takes the place of the collective one instead of following it.
    """

    blocks: str = "stage2-layers"
    positions: str = "stage2-positions"
    replaces: bool = False


class Method(ABC):
    """A method for one base model's shapes, made from the settings and these alone: server and clients agree.

    What a method does not override, it has not: a plain `Method` federates nothing, keeps nothing private and trains
    nothing; only its `reader` must be written. Prompts (`retrieved`, `profile`) are the run's and concern no method.
    """

    keeps_own = False  # whether each user is sent tensors of its own in stage 1, and keeps what it last trained
    loreft: LoReFTKeys | None = None  # where its tensors apply, if they are LoReFT edits {"R", "W", "b"}

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        self.settings = settings

    @property
    def engine(self) -> str:
        """What trains: an engine of `fed.settings.settings`, or the library; "none" where nothing does."""
        return "none"

    def plan(self, stage: int, proximal_mu: float = 0.0) -> TrainSettings:
        """How stage 1 or 2 trains by the settings; stage 2 is one training, whose rate always falls to zero."""
        s = self.settings
        return TrainSettings(
            epochs=s.stage1_epochs if stage == 1 else s.stage2_epochs,
            batch_size=s.batch_size,
            rate=s.stage1_lr if stage == 1 else s.stage2_lr,
            warmup=s.warmup,
            constant=stage == 1 and s.schedule == "constant",
            clip=s.clip,
            weight_decay=s.weight_decay,
            proximal_mu=proximal_mu,
            token_budget=s.token_budget,
            activation_cache=s.activation_cache << 20,
        )

    def draws(self, questions: Sequence[Question]) -> list[torch.Generator] | None:
        """A generator for each question's answer; None where decoding is greedy."""
        s = self.settings
        return [generator(s.seed, "decode", *q.seed_name) for q in questions] if s.temperature else None

    def collective_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of the tensors that stage 1 federates, in wire order; empty where nothing is."""
        return {}

    def private_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of one user's private tensors; they never cross the network. Empty: none."""
        return {}

    def frozen_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of what everybody draws from the run's seed and nobody sends. Empty: nothing."""
        return {}

    @property
    def cost(self) -> Cost:
        """What its tensors weigh."""
        return Cost(
            self.settings.method,
            federated=self.collective_shapes(),
            private=self.private_shapes(),
            frozen=self.frozen_shapes(),
        )

    def initial_collective(self) -> Tensors:
        """What the server starts stage 1 from."""
        return {}

    def whole(self, collective: Tensors) -> Tensors:
        """The collective tensors as they are kept and answered with: with what is drawn from a seed and never sent."""
        return collective

    def average(self, name: str, replies: Sequence[Tensors], weights: Sequence[float], before: Tensors) -> Tensors:
        """The mean of the clients' collective tensors; `before` is what they started from."""
        return average.average(name, replies, weights, before, attackers=self.settings.attackers)

    def for_each(
        self, users: Sequence[Hashable], latest: Mapping[Hashable, Tensors], before: Tensors
    ) -> dict[Hashable, Tensors]:
        """What each of these users is sent, where `keeps_own`; a user that is left out gets the average.

        Args:
            latest: user -> the tensors it sent last. before: the last average.
        """
        return {}

    def drift(self, collective: Tensors) -> float:
        """How far the collective tensors have left the set they should lie in; 0 where there is none."""
        return 0.0

    def train_collective(
        self,
        base: BaseModel,
        start: Tensors,
        users: Sequence[UserRows],
        *,
        round_number: int,
        proximal_mu: float = 0.0,
        progress: Progress | None = None,
    ) -> list[Trained]:
        """Stage 1 on a node: each user starts from `start` and trains on its own rows; see `fit_collective`."""
        name = (self.settings.seed, "stage1", round_number)
        return self.fit_collective(start, LocalTraining(base, users, self.plan(1, proximal_mu), name, progress))

    def train_private(
        self,
        base: BaseModel,
        collective: Tensors,
        users: Sequence[UserRows],
        *,
        progress: Progress | None = None,
    ) -> list[Trained]:
        """Stage 2 on a node: each user trains its private tensors over the collective ones; see `fit_private`."""
        name = (self.settings.seed, "stage2")
        return self.fit_private(collective, LocalTraining(base, users, self.plan(2), name, progress))

    def fit_collective(self, start: Tensors, training: LocalTraining) -> list[Trained]:
        """A method that federates says here how its users train from `start`."""
        raise NotImplementedError(f"{self.settings.method} federates nothing")

    def fit_private(self, collective: Tensors, training: LocalTraining) -> list[Trained]:
        """A method with private tensors says here how its users train them, over `collective`."""
        raise NotImplementedError(f"{self.settings.method} has nothing private")

    @abstractmethod
    def reader(self, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> Reader:
        """The base with the collective and these users' private tensors, ready to answer."""
