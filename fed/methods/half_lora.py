"""LoRA methods that federate one of the two matrices: FFA-LoRA and FedSA-LoRA, on q and v, r = α = 8.

    ΔW = B A        A: (r, in)   B: (out, r)

    ffa-lora     A is drawn from the run's seed, frozen and never sent; B is trained and averaged, and as the map is
                 linear in B, the mean of its entries is the mean map (Sun et al., 2024)
    fedsa-lora   both are trained; A is averaged, B stays with its user from round to round (Guo et al., 2024)

FFA-LoRA has nothing private. FedSA-LoRA's B is the private part: stage 2 trains it on, over the last round's A, and
without it A does nothing, so that its arm of stage 1 is the base. A by itself is no map, and its mean is that of its
entries, as in its paper.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fed.averages.entrywise import fedavg
from fed.base.skeleton import Skeleton
from fed.communication import costs
from fed.edits.lora import Adapters, initial
from fed.methods.lora import COLLECTIVE, Lora
from fed.methods.method import LocalTraining, Tensors, Trained, UserRows
from fed.randomness import generator
from fed.settings.settings import Settings


class _HalfLora(Lora):
    """One adapter on q and v, of which a half is federated."""

    def __init__(self, settings: Settings, base: Skeleton) -> None:
        super().__init__(settings, base)
        self.targets = {COLLECTIVE: costs.QUERY_VALUE}
        self.shapes = costs.lora_shapes(base, costs.QUERY_VALUE)

    def _drawn(self) -> Tensors:
        """PEFT's start, drawn from the run's seed: A random, B zero."""
        return initial(self.shapes, generator(self.settings.seed, "collective"))

    def initial_collective(self) -> Tensors:
        return {name: tensor for name, tensor in self._drawn().items() if name in self.collective_shapes()}

    def whole(self, collective: Tensors) -> Tensors:
        """Both matrices, in the adapter's order: what is not given as it was drawn."""
        like = next(iter(collective.values()))
        return {name: collective.get(name, tensor.to(like)) for name, tensor in self._drawn().items()}

    def average(self, name: str, replies: Sequence[Tensors], weights: Sequence[float], before: Tensors) -> Tensors:
        return fedavg(replies, weights)

    def put(self, adapters: Adapters, collective: Tensors | None, private: Tensors | None) -> None:
        if collective is None:
            if private is not None:
                raise ValueError(f"{self.settings.method}'s private half does nothing without the collective one")
            adapters.use([])
            return
        adapters.fill(COLLECTIVE, self.whole(collective | (private or {})))
        adapters.use([COLLECTIVE])


class FFALora(_HalfLora):
    """B federated, A frozen."""

    def fit_collective(self, start: Tensors, training: LocalTraining) -> list[Trained]:
        sent = self.collective_shapes()
        with self.adapted(training.base, (COLLECTIVE,)) as adapters:
            fitted = [
                self._fit(adapters, COLLECTIVE, self.whole(start), user, training, trained=sent)
                for user in training.users
            ]
        return [
            Trained(one.user_id, {name: one.tensors[name] for name in sent}, one.result) for one in fitted
        ]  # A is the seed's


class FedSALora(_HalfLora):
    """A federated, B each user's own."""

    keeps_own = True

    def fit_collective(self, start: Tensors, training: LocalTraining) -> list[Trained]:
        """Both matrices; what is kept is both, and what is sent are the tensors of `collective_shapes` alone."""
        with self.adapted(training.base, (COLLECTIVE,)) as adapters:
            return [
                self._fit(adapters, COLLECTIVE, self._start(user.given or start, user), user, training)
                for user in training.users
            ]

    def fit_private(self, collective: Tensors, training: LocalTraining) -> list[Trained]:
        kept = self.private_shapes()
        with self.adapted(training.base, (COLLECTIVE,)) as adapters:
            fitted = [
                self._fit(adapters, COLLECTIVE, self._start(collective, user), user, training, trained=kept)
                for user in training.users
            ]
        return [Trained(one.user_id, {name: one.tensors[name] for name in kept}, one.result) for one in fitted]

    def _start(self, given: Tensors, user: UserRows) -> Tensors:
        """The given A with the user's own B; zero where it has none yet."""
        like = next(iter(given.values()))
        own: dict[str, torch.Tensor] = {
            name: tensor.to(like) for name, tensor in (user.own or {}).items() if name in self.private_shapes()
        }
        return self.whole(given | own)
