"""The LoRA methods that PerFit is compared with: LoRA-C, LoRA-P and OPPU (PerFit, section 4; Tan et al., 2024).

    lora-c   one federated LoRA on q, k, v for everybody, nothing private
    lora-p   one private LoRA a user on q, v, nothing federated
    oppu     LoRA-C's, frozen, and a private LoRA on q, v on top of it

r = α = 8. Users train one after the other by PEFT on the one shared base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import torch

from fed.answering.decoding import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.reader import Question, Reader
from fed.answering.scoring import losses
from fed.averages import average
from fed.averages.lora_svd import lora_svd_mean
from fed.base.model import BaseModel
from fed.base.skeleton import Skeleton
from fed.communication import costs
from fed.edits.lora import Adapters, adapted, initial
from fed.edits.positions import Positions
from fed.forward.completion_loss import completion_nll, logits_only_where
from fed.methods.method import Method, Progress, Tensors, Trained, UserRows
from fed.randomness import generator
from fed.settings.settings import Settings
from fed.training import one_user
from fed.training.plan import TrainSettings

T = TypeVar("T")
COLLECTIVE, PRIVATE = "collective", "private"
_NOWHERE = Positions.parse("all")  # no LoReFT edit is in force, so its positions do not matter


class Lora(Method):
    """One of the three, by `settings.method`; what each federates and keeps stands in `fed.communication.costs`."""

    @property
    def engine(self) -> str:
        return "peft"

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        self.cost = costs.cost(settings.method, base)
        self.targets = {
            name: modules
            for name, modules, shapes in (
                (COLLECTIVE, costs.ATTENTION, self.cost.federated),
                (PRIVATE, costs.QUERY_VALUE, self.cost.private),
            )
            if shapes
        }

    def collective_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.cost.federated)

    def private_shapes(self) -> dict[str, tuple[int, ...]]:
        return dict(self.cost.private)

    def initial_collective(self) -> Tensors:
        return initial(self.collective_shapes(), generator(self.settings.seed, "collective"))

    def average(self, name: str, replies: Sequence[Tensors], weights: Sequence[float], before: Tensors) -> Tensors:
        if name == "svd":
            return lora_svd_mean(replies, weights, before)
        return average.average(name, replies, weights)

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
        plan = self.plan(1, proximal_mu)
        with self.adapted(base, (COLLECTIVE,)) as adapters:
            return [
                self._fit(base, adapters, COLLECTIVE, start, user, plan, ("stage1", round_number), progress)
                for user in users
            ]

    def train_private(
        self, base: BaseModel, collective: Tensors, users: Sequence[UserRows], *, progress: Progress | None = None
    ) -> list[Trained]:
        plan = self.plan(2)
        with self.adapted(base, tuple(self.targets)) as adapters:
            if COLLECTIVE in self.targets:
                adapters.fill(COLLECTIVE, collective)
            starts = (
                initial(self.private_shapes(), generator(self.settings.seed, "private", u.user_id)) for u in users
            )
            return [
                self._fit(base, adapters, PRIVATE, start, user, plan, ("stage2",), progress)
                for start, user in zip(starts, users, strict=True)
            ]

    def adapted(self, base: BaseModel, names: Sequence[str]) -> AbstractContextManager[Adapters]:
        """Put the method's adapters of these names on the base."""
        return adapted(base, {name: self.targets[name] for name in names}, costs.LORA_RANK, costs.LORA_ALPHA)

    def _fit(
        self,
        base: BaseModel,
        adapters: Adapters,
        name: str,
        start: Tensors,
        user: UserRows,
        plan: TrainSettings,
        purpose: tuple[object, ...],
        progress: Progress | None,
    ) -> Trained:
        adapters.fill(name, start)
        adapters.use([n for n in self.targets if n == COLLECTIVE or name == PRIVATE], trained=name)
        own = adapters.parameters(name)
        optimizer = torch.optim.AdamW(own.values(), lr=plan.rate, weight_decay=plan.weight_decay)
        with logits_only_where(base.model) as choose:
            result = one_user.fit(
                user.rows,
                generator(self.settings.seed, *purpose, user.user_id),
                plan,
                optimizer,
                lambda rows: one_user.accumulate(
                    base, rows, plan.token_budget, lambda batch: completion_nll(base.model, batch, choose)[0].sum()
                ),
                lambda: torch.stack([(p - start[key].to(p)).square().sum() for key, p in own.items()]).sum(),
                progress,
            )
        return Trained(user.user_id, adapters.tensors(name, list(start)), result)

    def reader(self, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> Reader:
        return _LoraReader(self, base, collective, private)


class _LoraReader(Reader):
    """PEFT puts one user's adapters in force at a time, so questions are answered group by group."""

    def __init__(self, method: Lora, base: BaseModel, collective: Tensors, private: Mapping[str, Tensors]) -> None:
        self._method, self._base, self._collective, self._private = method, base, collective, private

    def _by_group(
        self, questions: Sequence[Question], answer: Callable[[list[EditedRow], list[Question]], list[T]]
    ) -> list[T]:
        groups: dict[tuple[bool, str | None], list[int]] = {}
        for i, question in enumerate(questions):
            groups.setdefault((question.collective, question.personal), []).append(i)
        found: dict[int, T] = {}
        targets = self._method.targets
        with self._method.adapted(self._base, tuple(targets)) as adapters:
            if COLLECTIVE in targets:
                adapters.fill(COLLECTIVE, self._collective)
            for (collective, personal), places in groups.items():
                if personal is not None:
                    adapters.fill(PRIVATE, self._private[personal])
                wanted = {COLLECTIVE: collective, PRIVATE: personal is not None}
                adapters.use([name for name in targets if wanted[name]])
                chosen = [questions[i] for i in places]
                found |= zip(places, answer([EditedRow(q.row) for q in chosen], chosen), strict=True)
        return [found[i] for i in range(len(questions))]

    def losses(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> list[tuple[float, int]]:
        budget = 2 * self._method.settings.token_budget
        return self._by_group(
            questions, lambda rows, _: losses(self._base, rows, _NOWHERE, token_budget=budget, on_rows=on_rows)
        )

    def generate(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int,
        stop: str | None,
        on_rows: Callable[[int], None] | None = None,
    ) -> list[str]:
        s = self._method.settings

        def answer(rows: list[EditedRow], chosen: list[Question]) -> list[str]:
            return generate(
                self._base,
                rows,
                Decoding(max_new_tokens, s.temperature, s.top_k, s.top_p),
                _NOWHERE,
                generators=self._method.draws(chosen),
                token_budget=4 * s.token_budget,
                stop=stop,
                on_rows=on_rows,
            )

        return self._by_group(questions, answer)
