"""PerFit: a federated collective LoReFT edit, then each user's private LoReFT edit on top (equations 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fed import average, stiefel
from fed.base_model import BaseModel
from fed.batching import generator
from fed.loreft import EditBank, EditShape
from fed.methods.edit_reader import EditReader, on_base
from fed.methods.method import Method, Progress, Reader, Tensors, Trained, UserRows
from fed.positions import Positions
from fed.settings import Settings
from fed.skeleton import Skeleton
from fed.training import TrainSettings, train


class PerFit(Method):
    """Collective and private edits share the layers; their ranks, and where asked for their positions, differ."""

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        layers = settings.edited_layers(base.layers)
        self.collective = EditShape(layers, settings.stage1_rank, base.hidden_size)
        self.private = EditShape(layers, settings.stage2_rank, base.hidden_size)
        self.positions = Positions.parse(settings.positions)
        own = settings.positions if settings.stage2_positions == "same" else settings.stage2_positions
        self.private_positions = Positions.parse(own)

    @property
    def engine(self) -> str:
        return self.settings.engine

    def collective_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.collective.tensors()

    def private_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.private.tensors()

    def initial_collective(self) -> Tensors:
        return EditBank.identity(self.collective, [generator(self.settings.seed, "collective")]).tensors(0)

    def average(self, name: str, replies: Sequence[Tensors], weights: Sequence[float], before: Tensors) -> Tensors:
        return average.average(name, replies, weights, before)

    def drift(self, collective: Tensors) -> float:
        return stiefel.orthogonality_error(collective["R"])

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
        bank = on_base(EditBank.from_tensors(self.collective, [start] * len(users)), base)
        plan = self.plan(1, proximal_mu)
        return self._train(base, bank, users, plan, ("stage1", round_number), None, progress)

    def train_private(
        self,
        base: BaseModel,
        collective: Tensors,
        users: Sequence[UserRows],
        *,
        progress: Progress | None = None,
    ) -> list[Trained]:
        generators = [generator(self.settings.seed, "private", user.user_id) for user in users]
        bank = on_base(EditBank.identity(self.private, generators), base)
        frozen = on_base(EditBank.from_tensors(self.collective, [collective]), base)
        return self._train(base, bank, users, self.plan(2), ("stage2",), frozen, progress)

    def _train(
        self,
        base: BaseModel,
        bank: EditBank,
        users: Sequence[UserRows],
        plan: TrainSettings,
        purpose: tuple[object, ...],
        frozen: EditBank | None,
        progress: Progress | None,
    ) -> list[Trained]:
        draws = [generator(self.settings.seed, *purpose, user.user_id) for user in users]
        rows = [user.rows for user in users]
        where = self.positions if frozen is None else self.private_positions
        if self.settings.engine == "batched":
            results = train(
                base, bank, rows, draws, plan, where, frozen=frozen, frozen_positions=self.positions, on_step=progress
            )
        else:
            one_by_one = train
            if self.settings.engine == "pyreft":
                from fed import pyreft_engine

                one_by_one = pyreft_engine.train
            results = []
            for i in range(len(users)):
                own = EditBank.from_tensors(bank.shape, [bank.tensors(i)])
                results += one_by_one(
                    base,
                    own,
                    rows[i : i + 1],
                    draws[i : i + 1],
                    plan,
                    where,
                    frozen=frozen,
                    frozen_positions=self.positions,
                    on_step=progress,
                )
                for name, stacked in bank.parameters().items():
                    stacked[i] = own.parameters()[name][0]
        bank = bank.to(device="cpu")
        return [
            Trained(user.user_id, bank.tensors(i), result)
            for i, (user, result) in enumerate(zip(users, results, strict=True))
        ]

    def reader(self, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> Reader:
        shared = EditBank.from_tensors(self.collective, [collective])
        names = sorted(private)
        own = EditBank.from_tensors(self.private, [private[name] for name in names]) if names else None
        return EditReader(
            self,
            base,
            collective=shared,
            at=self.positions,
            names=names,
            personal=own,
            personal_at=self.private_positions,
        )
