"""PerFit: a federated collective LoReFT edit, then each user's private LoReFT edit on top (equations 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fed.answering.reader import Reader
from fed.base.model import BaseModel
from fed.base.skeleton import Skeleton
from fed.edits import stiefel
from fed.edits.loreft import EditBank, EditShape
from fed.edits.positions import Positions
from fed.methods.edit_reader import EditReader, on_base
from fed.methods.method import Method, Progress, Tensors, Trained, UserRows
from fed.randomness import generator
from fed.settings.settings import Settings
from fed.training.plan import TrainSettings
from fed.training.train import train


class PerFit(Method):
    """Collective and private edits share the layers; their ranks, and where asked for their positions, differ.

    A method that has one of the two alone sets the other to None.
    """

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        layers = settings.edited_layers(base.layers)
        self.collective: EditShape | None = EditShape(layers, settings.stage1_rank, base.hidden_size)
        self.private: EditShape | None = EditShape(layers, settings.stage2_rank, base.hidden_size)
        self.positions = Positions.parse(settings.positions)
        own = settings.positions if settings.stage2_positions == "same" else settings.stage2_positions
        self.private_positions = Positions.parse(own)

    @property
    def engine(self) -> str:
        return self.settings.engine

    def collective_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.collective.tensors() if self.collective else {}

    def private_shapes(self) -> dict[str, tuple[int, ...]]:
        return self.private.tensors() if self.private else {}

    def initial_collective(self) -> Tensors:
        if self.collective is None:
            return {}
        return EditBank.identity(self.collective, [generator(self.settings.seed, "collective")]).tensors(0)

    def drift(self, collective: Tensors) -> float:
        return stiefel.orthogonality_error(collective["R"]) if self.collective else 0.0

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
        assert self.collective
        bank = EditBank.from_tensors(self.collective, [start] * len(users))
        return self._train(
            base, bank, users, self.plan(1, proximal_mu), ("stage1", round_number), self.positions, progress=progress
        )

    def train_private(
        self,
        base: BaseModel,
        collective: Tensors,
        users: Sequence[UserRows],
        *,
        progress: Progress | None = None,
    ) -> list[Trained]:
        assert self.private
        generators = [generator(self.settings.seed, "private", user.user_id) for user in users]
        bank = EditBank.identity(self.private, generators)
        return self._train(
            base, bank, users, self.plan(2), ("stage2",), self.private_positions, self._shared(collective), progress
        )

    def _shared(self, collective: Tensors) -> EditBank | None:
        return EditBank.from_tensors(self.collective, [collective]) if self.collective else None

    def _train(
        self,
        base: BaseModel,
        bank: EditBank,
        users: Sequence[UserRows],
        plan: TrainSettings,
        purpose: tuple[object, ...],
        where: Positions,
        frozen: EditBank | None = None,
        progress: Progress | None = None,
    ) -> list[Trained]:
        """Train the users' edits in `bank` at `where`, over a frozen one that applies at `positions`."""
        bank, frozen = on_base(bank, base), None if frozen is None else on_base(frozen, base)
        draws = [generator(self.settings.seed, *purpose, user.user_id) for user in users]
        rows = [user.rows for user in users]
        if self.settings.engine == "batched":
            results = train(
                base, bank, rows, draws, plan, where, frozen=frozen, frozen_positions=self.positions, on_step=progress
            )
        else:
            one_by_one = train
            if self.settings.engine == "pyreft":
                from fed.training import pyreft_engine

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
        names = sorted(private)
        own = EditBank.from_tensors(self.private, [private[n] for n in names]) if self.private and names else None
        return EditReader(
            self,
            base,
            collective=self._shared(collective),
            at=self.positions,
            names=names,
            personal=own,
            personal_at=self.private_positions,
        )


class PerFitStage1(PerFit):
    """φ_1 without φ_2; bit for bit the collective edit of a `perfit` run with the same settings."""

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        self.private = None
