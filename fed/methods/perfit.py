"""PerFit: a federated collective LoReFT edit, then each user's private LoReFT edit on top (equations 1 and 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fed.answering.reader import Reader
from fed.base.model import BaseModel
from fed.base.skeleton import Skeleton
from fed.edits import stiefel
from fed.edits.loreft import EditBank, EditShape
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.methods.edit_reader import EditReader, on_base
from fed.methods.method import LocalTraining, Method, Tensors, Trained
from fed.randomness import generator
from fed.settings.settings import Settings
from fed.training.train import train


class PerFit(Method):
    """Collective and private edits differ in rank, and where asked for in layers and in positions.

    A method that has one of the two alone sets the other to None.
    """

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        layers, private_layers = settings.edited_layers(base.layers), settings.private_layers(base.layers)
        self.collective: EditShape | None = EditShape(layers, settings.stage1_rank, base.hidden_size)
        self.private: EditShape | None = EditShape(private_layers, settings.stage2_rank, base.hidden_size)
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

    def fit_collective(self, start: Tensors, training: LocalTraining) -> list[Trained]:
        assert self.collective
        bank = EditBank.from_tensors(self.collective, [start] * len(training.users))
        return self._fit(EditStack(Layer(bank, self.positions)), training)

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
        return Layer(EditBank.from_tensors(self.collective, [collective]), self.positions, shared=True)

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
