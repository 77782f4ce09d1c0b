"""PerFit: a federated collective LoReFT edit, then each user's private LoReFT edit on top (equations 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from fed.answering.reader import Reader
from fed.averages.exact import exact_mean
from fed.base.model import BaseModel
from fed.base.skeleton import Skeleton
from fed.edits import stiefel
from fed.edits.loreft import EditBank, EditShape
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.methods.edit_reader import EditReader, on_base
from fed.methods.method import LocalTraining, LoReFTKeys, Method, Tensors, Trained
from fed.randomness import generator
from fed.settings.rules import SettingsError
from fed.settings.settings import Settings
from fed.training.plan import TrainSettings
from fed.training.train import train


class PerFit(Method):
    """Collective and private edits differ in rank, and where asked for in layers and in positions.

    A method that has one of the two alone sets the other to None.
    """

    loreft: LoReFTKeys | None = LoReFTKeys()

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        layers, private_layers = settings.edited_layers(base.layers), settings.private_layers(base.layers)
        self.collective: EditShape | None = EditShape(layers, settings.stage1_rank, base.hidden_size)
        self.private: EditShape | None = EditShape(private_layers, settings.stage2_rank, base.hidden_size)
        if settings.average == "exact" and self.collective:
            self.collective = replace(self.collective, rank=exact_rows(settings, base.hidden_size))
        self.positions = Positions.parse(settings.positions)
        own = settings.positions if settings.stage2_positions == "same" else settings.stage2_positions
        self.private_positions = Positions.parse(own)

    @property
    def engine(self) -> str:
        return self.settings.engine

    @property
    def frozen_rotation(self) -> bool:
        """Whether R is drawn from the run's seed, by everybody, and neither trained nor sent."""
        return self.collective is not None and self.settings.average == "frozen-r"

    def plan(self, stage: int, proximal_mu: float = 0.0) -> TrainSettings:
        plan = super().plan(stage, proximal_mu)
        if stage == 2 or not self.collective:
            return plan
        rows = self.settings.stage1_rank if self.settings.average == "exact" else 0
        return replace(plan, frozen_R=self.frozen_rotation, trained_rows=rows)

    def collective_shapes(self) -> dict[str, tuple[int, ...]]:
        if self.collective is None:
            return {}
        shapes = self.collective.tensors()
        return {"D": shapes["W"], "b": shapes["b"]} if self.frozen_rotation else shapes

    def private_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.private.tensors() if self.private else {}

    def frozen_shapes(self) -> dict[str, tuple[int, ...]]:
        return {"R": self.collective.tensors()["R"]} if self.collective and self.frozen_rotation else {}

    def initial_collective(self) -> Tensors:
        """The identity edit. Rows beyond those that are trained (`exact`) have a draw of their own."""
        if self.collective is None:
            return {}
        shape = replace(self.collective, rank=self.settings.stage1_rank)
        start = EditBank.identity(shape, [generator(self.settings.seed, "collective")]).tensors(0)
        if self.collective.rank > shape.rank:
            more = (len(shape.blocks), self.collective.rank - shape.rank, shape.hidden_size)
            noise = torch.randn(more, generator=generator(self.settings.seed, "collective", "more rows"))
            R = stiefel.qr_retraction(torch.cat([start["R"], noise], dim=1))
            start = {"R": R, "W": R.clone(), "b": torch.zeros(R.shape[:2])}
        return self._sent(start) if self.frozen_rotation else start

    def whole(self, collective: Tensors) -> Tensors:
        """The edit {"R", "W", "b"}; where R is frozen, with the R of the run's seed."""
        if not self.frozen_rotation or "R" in collective:
            return collective
        assert self.collective
        return with_the_seeds_R(collective, self.collective, self.settings.seed)

    def _sent(self, edit: Tensors) -> Tensors:
        """What crosses the network of an edit whose R is frozen."""
        return {"D": edit["W"] - edit["R"], "b": edit["b"]}

    def average(self, name: str, replies: Sequence[Tensors], weights: Sequence[float], before: Tensors) -> Tensors:
        if name != "exact":
            return super().average(name, replies, weights, before)
        assert self.collective
        rows, trained = self.collective.rank, self.settings.stage1_rank
        return exact_mean(replies, weights, before, rows=rows, trained=trained)

    def drift(self, collective: Tensors) -> float:
        return stiefel.orthogonality_error(collective["R"]) if "R" in collective else 0.0

    def fit_collective(self, start: Tensors, training: LocalTraining) -> list[Trained]:
        assert self.collective
        bank = EditBank.from_tensors(self.collective, [self.whole(start)] * len(training.users))
        trained_users = self._fit(EditStack(Layer(bank, self.positions)), training)
        if not self.frozen_rotation:
            return trained_users
        return [replace(trained, tensors=self._sent(trained.tensors)) for trained in trained_users]

    def fit_private(self, collective: Tensors, training: LocalTraining) -> list[Trained]:
        assert self.private
        draws = [generator(self.settings.seed, "private", user.user_id) for user in training.users]
        own = Layer(EditBank.identity(self.private, draws), self.private_positions)
        shared = self.shared_layer(collective)
        return self._fit(EditStack(shared, own) if shared else EditStack(own), training)

    def shared_layer(self, collective: Tensors) -> Layer | None:
        """The collective edit as a layer of the stack; None where the method has none."""
        if self.collective is None:
            return None
        return Layer(EditBank.from_tensors(self.collective, [self.whole(collective)]), self.positions, shared=True)

    def own_layer(self, edits: Sequence[Tensors]) -> Layer | None:
        """Users' private edits as a layer of the stack; None where the method or the caller has none."""
        if self.private is None or not edits:
            return None
        return Layer(EditBank.from_tensors(self.private, edits), self.private_positions)

    def _fit(self, stack: EditStack, training: LocalTraining) -> list[Trained]:
        """Train the stack's last layer, which has an edit for each of the users, by the engine that the run names."""
        stack, users = on_base(stack, training.base), training.users
        engine = train
        if self.settings.engine == "pyreft":
            from fed.training import pyreft_engine

            engine = pyreft_engine.train
        rows, draws = [user.rows for user in users], [training.draw(user) for user in users]
        results = engine(training.base, stack, rows, draws, training.plan, on_step=training.progress)
        bank = stack.trained.bank.to(device="cpu")
        return [
            Trained(user.user_id, bank.tensors(i), result)
            for i, (user, result) in enumerate(zip(users, results, strict=True))
        ]

    def reader(self, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> Reader:
        names = sorted(private)
        own = self.own_layer([private[name] for name in names])
        return EditReader(self, base, collective=self.shared_layer(collective), personal=own, names=names)


class PerFitStage1(PerFit):
    """φ_1 without φ_2; bit for bit the collective edit of a `perfit` run with the same settings."""

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        self.private = None


def with_the_seeds_R(collective: Tensors, shape: EditShape, seed: int) -> Tensors:
    """The edit {"R", "W", "b"} of {"D", "b"}, whose R is drawn from the run's seed."""
    R = EditBank.identity(shape, [generator(seed, "collective")]).tensors(0)["R"].to(collective["D"])
    return {"R": R, "W": R + collective["D"], "b": collective["b"]}


def exact_rows(settings: Settings, hidden_size: int) -> int:
    """The rows of an edit under `exact`. Raises SettingsError where they are fewer than are trained, or more than d."""
    rows = settings.exact_rank or hidden_size
    if not settings.stage1_rank <= rows <= hidden_size:
        raise SettingsError(
            f"exact-rank must be 0 or lie between stage1-rank = {settings.stage1_rank} and the hidden size "
            f"{hidden_size}, got {rows}"
        )
    return rows
