"""δ-vectors: how a user's own history before a query shifts the hidden state (PerFit, section 2).

    vᵢ = mean over user i's queries q of  h_ℓ( contextᵢ(q) ⊕ q ) − h_ℓ( q )          at the prompt's last token
    cᵢ = the same with context_j(q), found for the same q in another user's history   the control

contextᵢ(q) are the items that BM25 finds for q in the user's history, worded as `fed.prompts.before_rows` does. Both
prompts end in the same cue, so the last token is the same one. No answer to a query is read: neither its gold, which
stands in no prompt, nor one of the history, which is earlier. In the control each user lends the history to exactly one
other: what vᵢ and cᵢ share, any context does.

Shapes:  d hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.base.model import BaseModel
from fed.forward.batching import tokenize
from fed.forward.hidden_states import last_token
from fed.lamp.tasks import Task
from fed.lamp.user import User
from fed.prompts.before_rows import Prompts
from fed.randomness import generator


@dataclass(frozen=True)
class Context:
    """What is read, and how much a forward pass may take.

    Attributes:
        layer: the decoder block, from 0, whose output is read.
        retrieved: items of history before a query.
        max_length: tokens of a prompt at most; items are shortened before they are left out.
        max_queries: a user's first ones; 0 takes all.
        token_budget: tokens of one forward pass after padding.
    """

    layer: int
    retrieved: int = 4
    max_length: int = 1024
    max_queries: int = 0
    token_budget: int = 4096


@dataclass(frozen=True)
class UserShift:
    """One user's δ-vector and its control.

    Attributes:
        queries: over how many the mean goes.
        own: (d,) float32, with the user's own history.
        other: (d,) float32, with another's.
        left_out: retrieved items of the own history that did not fit, over all queries.
    """

    user_id: str
    queries: int
    own: Tensor
    other: Tensor
    left_out: int


def lenders(users: Sequence[str], seed: int) -> dict[str, str]:
    """user -> whose history is the control's: one ring through all users in an order that the seed draws.

    Raises:
        ValueError: fewer than two users.
    """
    if len(users) < 2:
        raise ValueError(f"a control by other users' histories needs at least 2 users, got {len(users)}")
    ordered = sorted(users)
    ring = [ordered[i] for i in torch.randperm(len(ordered), generator=generator(seed, "lenders")).tolist()]
    return {user: ring[(place + 1) % len(ring)] for place, user in enumerate(ring)}


def delta_vectors(
    base: BaseModel,
    task: Task,
    users: Sequence[str],
    load: Callable[[str], User],
    context: Context,
    *,
    seed: int = 0,
    start: int = 0,
) -> Iterator[UserShift]:
    """The users' shifts, one after the other in the order given.

    Promise: two users are in memory, however many there are (tests/fed/exploration/test_delta_vectors.py).

    Args:
        load: gives a user by id, each time it is asked.
        seed: of who lends a history to whom.
        start: how many of the users are left out, the first ones; they lend histories all the same.

    Raises:
        ValueError: fewer than two users, a user without queries, or a layer that the base has not.
    """
    if not 0 <= context.layer < base.skeleton.layers:
        raise ValueError(f"the layer must lie in 0..{base.skeleton.layers - 1}, got {context.layer}")
    lender = lenders(users, seed)
    for user_id in users[start:]:
        yield _shift(base, task, load(user_id), load(lender[user_id]), context)


def _shift(base: BaseModel, task: Task, user: User, lender: User, context: Context) -> UserShift:
    queries = user.queries[: context.max_queries or None]
    if not queries:
        raise ValueError(f"a δ-vector is a mean over queries, and user {user.user_id!r} has none; leave the user out")
    wordings = [
        Prompts(
            task,
            whose,
            retrieved=context.retrieved,
            profile="",
            tokenizer=base.tokenizer,
            max_length=context.max_length,
        )
        for whose in (user, lender)
    ]
    prompts = [task.query_pair(query).prompt for query in queries]
    prompts += [wording.query_pair(query).prompt for wording in wordings for query in queries]
    rows = tokenize([(prompt, "") for prompt in prompts], base.tokenizer, context.max_length)
    states = last_token(base, [row.prompt for row in rows], context.layer, token_budget=context.token_budget)
    bare, own, other = states.cpu().double().view(3, len(queries), -1).mean(1)
    if not bool((own + other - bare).isfinite().all()):
        raise ValueError(
            f"the states of user {user.user_id!r} at block {context.layer} are not finite; try another dtype"
        )
    return UserShift(
        user.user_id, len(queries), (own - bare).float(), (other - bare).float(), left_out=wordings[0].left_out
    )
