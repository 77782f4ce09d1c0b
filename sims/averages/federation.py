"""The base, the users' rows, and one cell's rounds of stage 1: train, lie, average, test.

What a server and its clients do is the product's own code (`Method.train_collective`, `Method.average`); what is
missing is everything between them: wire, screening, dropped replies. Rows of the test come from users who do not train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from averages.attacks import lie, poisoned, triggered
from fed import methods
from fed.answering.reader import Question
from fed.base import model as base_model
from fed.base import random_base
from fed.base.model import BaseModel
from fed.forward.batching import Row, tokenize
from fed.lamp.cohorts import roster, stage1_pairs, test_pairs
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.methods.method import Method, Tensors, Trained, UserRows
from fed.randomness import generator
from fed.settings.settings import Settings

Counts = dict[str, tuple[float, int]]  # test user -> (summed nll, tokens)


@dataclass
class Federation:
    """Everything that the cells share.

    Attributes:
        base: loaded once.
        train, test: user -> rows.
        first_rounds: what users sent in round 1, by all that it depends on: averages that start alike train it once.
    """

    base: BaseModel
    train: dict[str, list[Row]]
    test: dict[str, list[Row]]
    first_rounds: dict[str, list[Trained]] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Federation:
        """Open the data, then load the base. Raises ValueError for what cannot be had."""
        s, task = settings, get_task(settings.task)
        corpus = open_corpus(s.data_source, task, seed=s.seed)
        users = roster(corpus, cohorts=s.cohorts, stage1_users=s.stage1_users, stage2_users=s.stage2_users)
        load = random_base.load if s.base_model.startswith(random_base.PREFIX) else base_model.load
        base = load(s.base_source, device=s.device, dtype=s.dtype)
        train, test = {}, {}
        for user in users.stage1:
            pairs = stage1_pairs(task, corpus.user(user), cohorts=s.cohorts, max_items=s.max_items)
            train[user] = tokenize(pairs, base.tokenizer, s.max_length)
        for user in users.stage2:
            asked = test_pairs(task, corpus.user(user), cohorts=s.cohorts, max_queries=s.max_queries)
            test[user] = tokenize([pair for _, pair in asked], base.tokenizer, s.max_length)
        return cls(base, {user: rows for user, rows in train.items() if rows}, test)

    def users_of(self, settings: Settings, number: int) -> list[str]:
        """Who takes part in a round: the same users whatever the average is, sorted."""
        users = sorted(self.train)
        order = torch.randperm(len(users), generator=generator(settings.seed, "sample", number)).tolist()
        return sorted(users[i] for i in order[: max(1, round(settings.fraction * len(users)))])

    def losses(self, method: Method, collective: Tensors | None, rows: dict[str, list[Row]]) -> Counts:
        """Of every user's rows under the collective edit; None: of the base itself."""
        questions = [Question(row, collective is not None, None) for user in rows for row in rows[user]]
        reader = method.reader(self.base, method.initial_collective() if collective is None else collective, {})
        costs, counts = iter(reader.losses(questions)), {}
        for user in rows:
            own = [next(costs) for _ in rows[user]]
            counts[user] = (sum(cost.nll for cost in own), sum(cost.tokens for cost in own))
        return counts

    def play(
        self, settings: Settings, *, attack: str = "", liars: int = 0, on_round: Callable[[], None] = lambda: None
    ) -> list[dict[str, Any]]:
        """One cell: a record of every round.

        Args:
            settings: the cell's, its average, seed and local epochs among them.
            attack: what the liars do; "" where all are honest.
            liars: how many of a round's users lie, the first by id.
            on_round: told after each.
        Raises:
            ValueError: the average refuses these replies.
        """
        method = methods.make(settings, self.base.skeleton)
        edit, records = method.initial_collective(), []
        for number in range(1, settings.rounds + 1):
            users = self.users_of(settings, number)
            bad = set(users[:liars])
            replies = self._trained(method, edit, users, bad if attack == "backdoor" else set(), number)
            sent = [
                lie(attack, reply.tensors, (settings.seed, number, reply.user_id))
                if reply.user_id in bad
                else reply.tensors
                for reply in replies
            ]
            weights = [float(len(self.train[user])) for user in users]
            edit = method.average(settings.average, sent, weights, edit)
            counts = self.losses(method, edit, self.test)
            record: dict[str, Any] = {
                "round": number,
                "loss": pooled(counts),
                "orthogonality_error": method.drift(edit),
                "users": counts,
            }
            if attack == "backdoor":
                asked = {user: triggered(self.base, rows) for user, rows in self.test.items()}
                record["backdoor"] = pooled(self.losses(method, edit, asked))
            records.append(record)
            on_round()
        return records

    def _trained(
        self, method: Method, start: Tensors, users: Sequence[str], bad: set[str], number: int
    ) -> list[Trained]:
        """What the users' training makes of `start`, in the order of `users`; the bad ones' rows are poisoned."""
        s = method.settings
        digest = hashlib.sha256(repr((s.local_epochs, s.seed, number, list(users), sorted(bad))).encode())
        for name, tensor in start.items():
            digest.update(name.encode() + tensor.numpy().tobytes())
        key = digest.hexdigest()
        if key in self.first_rounds:
            return self.first_rounds[key]
        rows = [UserRows(u, poisoned(self.base, self.train[u]) if u in bad else self.train[u]) for u in users]
        trained = method.train_collective(self.base, start, rows, round_number=number)
        if failed := [one for one in trained if one.result.error]:
            raise ValueError(f"user {failed[0].user_id!r} could not train: {failed[0].result.error}")
        if number == 1:
            self.first_rounds[key] = trained
        return trained


def pooled(counts: Counts) -> float:
    """Loss per token over all users."""
    return sum(nll for nll, _ in counts.values()) / sum(tokens for _, tokens in counts.values())
