"""The LoRA methods that PerFit is compared with: LoRA-C, LoRA-P and OPPU (PerFit, section 4; Tan et al., 2024).

    lora-c   one federated LoRA on q, k, v for everybody, nothing private
    lora-p   one private LoRA a user on q, v, nothing federated
    oppu     LoRA-C's, frozen, and a private LoRA on q, v on top of it

r = α = 8. Users train one after the other by PEFT on the one shared base.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

from fed.answering.edited_rows import EditedRow
from fed.answering.reader import Question, Reader
from fed.averages import average
from fed.averages.lora_svd import lora_svd_mean
from fed.averages.robust import ADAPTERS, NEEDS, robust_mean
from fed.base.model import BaseModel
from fed.base.skeleton import Skeleton
from fed.communication import costs
from fed.edits.lora import Adapters, adapted, initial
from fed.forward.completion_loss import completion_nll, logits_only_where
from fed.methods.edit_reader import Answer, EditReader
from fed.methods.method import LocalTraining, Method, Tensors, Trained, UserRows
from fed.randomness import generator
from fed.settings.settings import Settings
from fed.training import one_user

T = TypeVar("T")
COLLECTIVE, PRIVATE = "collective", "private"


class Lora(Method):
    """One of the three, by `settings.method`; what each federates and keeps stands in `fed.communication.costs`."""

    @property
    def engine(self) -> str:
        return "peft"

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        self.parts = self.parts_on(base)
        self.targets = {
            name: modules
            for name, modules, shapes in (
                (COLLECTIVE, costs.ATTENTION, self.parts.federated),
                (PRIVATE, costs.QUERY_VALUE, self.parts.private),
            )
            if shapes
        }

    def parts_on(self, base: Skeleton) -> costs.Cost:
        """What it federates, keeps and freezes of adapters on this base; a method over this one says here what it has.

        Raises:
            ValueError: the analysis knows no method of this name.
        """
        return costs.cost(self.settings.method, base)

    def collective_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.parts.federated)

    def private_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.parts.private)

    def frozen_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.parts.frozen)

    def initial_collective(self) -> Tensors:
        return initial(self.collective_shapes(), generator(self.settings.seed, "collective"))

    def average(self, name: str, replies: Sequence[Tensors], weights: Sequence[float], before: Tensors) -> Tensors:
        if name == "svd":
            return lora_svd_mean(replies, weights, before)
        if name in NEEDS:
            return robust_mean(name, replies, self.settings.attackers, before, ADAPTERS)
        return average.average(name, replies, weights)

    def fit_collective(self, start: Tensors, training: LocalTraining) -> list[Trained]:
        with self.adapted(training.base, (COLLECTIVE,)) as adapters:
            return [self._fit(adapters, COLLECTIVE, start, user, training) for user in training.users]

    def fit_private(self, collective: Tensors, training: LocalTraining) -> list[Trained]:
        seed, shapes = self.settings.seed, self.private_shapes()
        with self.adapted(training.base, tuple(self.targets)) as adapters:
            if COLLECTIVE in self.targets:
                adapters.fill(COLLECTIVE, collective)
            return [
                self._fit(adapters, PRIVATE, initial(shapes, generator(seed, "private", user.user_id)), user, training)
                for user in training.users
            ]

    def adapted(self, base: BaseModel, names: Sequence[str]) -> AbstractContextManager[Adapters]:
        """Put the method's adapters of these names on the base."""
        return adapted(base, {name: self.targets[name] for name in names}, costs.LORA_RANK, costs.LORA_ALPHA)

    def _fit(
        self,
        adapters: Adapters,
        name: str,
        start: Tensors,
        user: UserRows,
        training: LocalTraining,
        trained: Collection[str] | None = None,
    ) -> Trained:
        """Train the adapter of this name from `start` on one user's rows.

        Args:
            trained: which of its tensors; None: all.
        """
        base, plan = training.base, training.plan
        adapters.fill(name, start)
        adapters.use([n for n in self.targets if n == COLLECTIVE or name == PRIVATE], trained=name)
        own = {key: p for key, p in adapters.parameters(name).items() if trained is None or key in trained}
        for key, parameter in adapters.parameters(name).items():
            parameter.requires_grad_(key in own)
        optimizer = torch.optim.AdamW(own.values(), lr=plan.rate, weight_decay=plan.weight_decay)
        with logits_only_where(base.model) as choose:
            result = one_user.fit(
                user.rows,
                training.draw(user),
                plan,
                optimizer,
                lambda rows: one_user.accumulate(
                    base, rows, plan.token_budget, lambda batch: completion_nll(base.model, batch, choose)[0].sum()
                ),
                lambda: torch.stack([(p - start[key].to(p)).square().sum() for key, p in own.items()]).sum(),
                training.progress,
            )
        return Trained(user.user_id, adapters.tensors(name, list(start)), result)

    def put(self, adapters: Adapters, collective: Tensors | None, private: Tensors | None) -> None:
        """Put one arm's adapters in force, filled; None: without that one."""
        given = {COLLECTIVE: collective, PRIVATE: private}
        names = [name for name in self.targets if given[name] is not None]
        for name in names:
            adapters.fill(name, given[name] or {})
        adapters.use(names)

    def reader(self, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> Reader:
        return _LoraReader(self, base, collective, private)


class _LoraReader(EditReader):
    """PEFT puts one user's adapters in force at a time, so questions are answered group by group, on the bare stack."""

    def __init__(self, method: Lora, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> None:
        super().__init__(method, base)
        self._lora, self._collective, self._private = method, collective, private

    def answered(self, questions: Sequence[Question], answer: Answer[T]) -> list[T]:
        groups: dict[tuple[bool, str | None], list[int]] = {}
        for i, question in enumerate(questions):
            groups.setdefault((question.collective, question.personal), []).append(i)
        answers: dict[int, T] = {}
        with self._lora.adapted(self.base, tuple(self._lora.targets)) as adapters:
            for (collective, personal), places in groups.items():
                shared = self._collective if collective else None
                self._lora.put(adapters, shared, None if personal is None else self._private[personal])
                group = [questions[i] for i in places]
                answers |= zip(places, answer([EditedRow(q.row) for q in group], group), strict=True)
        return [answers[i] for i in range(len(questions))]
