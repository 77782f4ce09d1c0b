"""The gradient of every user's minibatch loss, from forward passes that users share.

Shapes:  U users · B rows · T tokens · N completion tokens in a batch · V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.base.model import BaseModel
from fed.edits.stack import AttachedStack, EditStack
from fed.forward import prefix_cache
from fed.forward.activation_cache import CACHE
from fed.forward.batching import Batch, Row, pad, to_device, under_token_budget
from fed.forward.completion_loss import Chosen, completion_nll, logits_only_where
from fed.forward.prefix_cache import Prefix
from fed.forward.resumed import passes, stacked
from fed.training.plan import TrainSettings


@dataclass(frozen=True)
class KnownRow:
    """A row, and what need not be computed again.

    Attributes:
        states: (T, d) at the output of the stack's first trained block; None where they are computed in every pass.
        prefix: what its first tokens leave behind; None where they are read in every pass.
    """

    row: Row
    states: Tensor | None
    prefix: Prefix | None


def known_rows(
    base: BaseModel, rows: Sequence[Sequence[Row]], stack: EditStack, settings: TrainSettings
) -> list[list[KnownRow]]:
    """Every user's rows, with what the settings leave room to keep."""
    first = stack.first_trained_block
    states = CACHE.of(base, rows, first, settings.token_budget, settings.activation_cache, stack.frozen)
    if states is None:
        return [[KnownRow(row, None, None) for row in own] for own in rows]
    prefixes = _prefixes(base, rows, stack, states, settings)
    return [
        [KnownRow(row, states[u][i], prefixes[u][i] if prefixes else None) for i, row in enumerate(own)]
        for u, own in enumerate(rows)
    ]


def _prefixes(
    base: BaseModel,
    rows: Sequence[Sequence[Row]],
    stack: EditStack,
    states: Sequence[Sequence[Tensor]],
    settings: TrainSettings,
) -> list[list[Prefix]] | None:
    """Every user's rows' prefixes; None where they would not pay, or not fit beside the states."""
    trained, first = stack.trained.positions, stack.first_trained_block
    if not prefix_cache.worth_it(base, rows, trained):
        return None
    tokens = sum(sum(prefix_cache.lengths(own, trained)) for own in rows)
    taken = sum(one.nbytes for own in states for one in own)
    if taken + prefix_cache.bytes_of(base, tokens, first) > settings.activation_cache:
        return None
    return [
        prefix_cache.read(base, own, stack, of_rows, settings.token_budget, user)
        for user, (own, of_rows) in enumerate(zip(rows, states, strict=True))
    ]


@dataclass(frozen=True)
class SharedPasses:
    """The base under a stack whose last layer trains, ready for forward and backward passes. Made by `shared_passes`.

    Attributes:
        token_budget: padded tokens of one forward pass.
        attached: the stack on the base.
        choose: where the coming pass needs logits.
        give: takes the rows' states below the first trained edit, where they are known; None: passes begin at the
        embeddings.
    """

    base: BaseModel
    stack: EditStack
    token_budget: int
    attached: AttachedStack
    choose: Chosen
    give: Callable[[Tensor], None] | None

    def accumulate(self, minibatches: Mapping[int, Sequence[KnownRow]]) -> dict[int, float]:
        """Give the last layer's bank the gradient of every user's minibatch loss.

        Promise: whose rows share a batch decides nothing, not even the order of a sum
        (`tests/integration/test_engines_on_the_real_base.py`: bit for bit). Every row has a copy of its user's edit and
        so a gradient of its own; a user's are added in the order of its own minibatch.

        Args:
            minibatches: user -> the rows of its minibatch.
        Returns:
            user -> mean loss over the minibatch's completion tokens.
        """
        users = sorted(minibatches)
        flat = [(user, known) for user in users for known in minibatches[user]]
        labels = {user: sum(len(known.row.completion) for known in own) for user, own in minibatches.items()}
        parameters = list(self.stack.trained.bank.parameters().values())
        gradients = [p.new_zeros(len(flat), *p.shape[1:]) for p in parameters]
        # Forward and backward, batch by batch. Losses are read when all are on their way, for reading waits.
        order: list[int] = []
        losses: list[Tensor] = []
        for places in under_token_budget([len(known.row) for _, known in flat], self.token_budget):
            owners = [flat[i][0] for i in places]
            leaves = self.attached.take_leaves(to_device(torch.tensor(owners), self.base.device))
            nll, row = self._nll([flat[i][1] for i in places])
            weight = to_device(torch.tensor([1.0 / labels[u] for u in owners], dtype=nll.dtype), self.base.device)
            (nll * weight[row]).sum().backward()
            where = to_device(torch.tensor(places), self.base.device)
            for gradient, leaf in zip(gradients, leaves, strict=True):
                assert leaf.grad is not None
                gradient[where] = leaf.grad
            order += owners
            losses.append(nll.new_zeros(len(owners)).index_add_(0, row, nll.detach()))
        # A user's gradient is the sum over its rows.
        for p, gradient in zip(parameters, gradients, strict=True):
            p.grad = torch.zeros_like(p)
            for user, of_user in zip(users, gradient.split([len(minibatches[user]) for user in users]), strict=True):
                p.grad[user] = of_user.sum(0)
        terms: dict[int, list[float]] = {user: [] for user in minibatches}
        for user, value in zip(order, torch.cat(losses).tolist(), strict=True):
            terms[user].append(value / labels[user])
        return {user: math.fsum(values) for user, values in terms.items()}

    def _nll(self, known: Sequence[KnownRow]) -> tuple[Tensor, Tensor]:
        """(nll of each completion token (N,), which row it belongs to (N,)) of rows whose edits have been taken."""
        batch, masks, starts = self._batch(known)
        if self.give is not None:
            states = [one.states for one in known if one.states is not None]
            self.give(stacked([own[start:] for own, start in zip(states, starts, strict=True)]))
        self.attached.at_masks(masks)
        return completion_nll(self.base.model, batch, self.choose)

    def _batch(self, known: Sequence[KnownRow]) -> tuple[Batch, list[Tensor], list[int]]:
        """The tokens to compute, where each layer applies among them, and at which of its tokens each row begins."""
        base, layers = self.base, self.stack.layers
        rows = [one.row for one in known]
        prefixes = [one.prefix for one in known if one.prefix is not None]
        if not prefixes:
            batch = pad(rows, base.pad_id, base.device)
            return batch, [layer.positions.mask(batch.prompt, batch.tokens) for layer in layers], [0] * len(rows)
        first = self.stack.first_trained_block
        masks = [prefix_cache.rest_mask(base, rows, prefixes, layer.positions) for layer in layers]
        return prefix_cache.rest(base, rows, prefixes, first), masks, [prefix.tokens for prefix in prefixes]


@contextmanager
def shared_passes(
    base: BaseModel, stack: EditStack, token_budget: int, *, states_known: bool
) -> Iterator[SharedPasses]:
    """Attach the stack to the base while the context lasts.

    Args:
        token_budget: padded tokens of one forward pass.
        states_known: whether the rows bring their states below the first trained edit, at which passes then begin.
    """
    with (
        passes(base, stack, stack.first_trained_block if states_known else None) as (attached, give),
        logits_only_where(base.model, whole_block=stack.edits_block(base.skeleton.layers - 1)) as choose,
    ):
        yield SharedPasses(base, stack, token_budget, attached, choose, give)
