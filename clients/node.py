"""One node: the users it hosts, their data, the vault, and the base model that they share.

A device hosts one user (node config `user-id`), on a history of its own or as a user of the run's data; a simulated
SuperNode hosts a block of users. The base model is loaded once a process, on first use; on a device every message is a
new process, so a history that has grown is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from clients.node_config import NodeConfig, NodeConfigError
from fed import base_facts, base_model, methods
from fed.base_facts import Facts
from fed.base_model import BaseModel
from fed.batching import tokenize
from fed.cohorts import Roster, block, roster, stage1_pairs, stage2_pairs, test_queries
from fed.evaluation import TestUser
from fed.lamp.own_history import open_history
from fed.lamp.records import Corpus, open_corpus
from fed.lamp.tasks import get_task
from fed.methods import Method, UserRows
from fed.settings import Settings
from fed.vault import Vault


class Node:
    """Made per message from the run's settings and the node's own config; what is slow is cached per process."""

    def __init__(self, settings: Settings, config: NodeConfig, run_id: int) -> None:
        self.part, self.parts = config.part, config.parts
        self.settings = replace(settings, base_model=config.base_model) if config.base_model else settings
        self.task = get_task(settings.task)
        self._rows_by = self.settings
        if config.user_id is not None and config.history is not None:
            # A device that brings its own data does both stages on it, whoever else is in the run.
            self._rows_by = replace(self.settings, cohorts="all", stage1_users=0, stage2_users=0)
            self.corpus = open_history(config.history, self.task, config.user_id)
        else:
            self.corpus = _corpus(settings.data_source, settings.task, settings.seed)
        everyone = roster(self.corpus, self._rows_by)
        if config.user_id is not None:
            own = config.user_id
            if own not in everyone.everyone:
                raise NodeConfigError("user-id must be a user of this run's data", repr(own), "or give a history")
            hosted = {own}
        elif settings.cohorts == "all":
            hosted = set(block(everyone.everyone, self.part, self.parts))
        else:
            hosted = {
                *block(everyone.stage1, self.part, self.parts),
                *block(everyone.stage2, self.part, self.parts),
            }
        self.roster = Roster(
            tuple(u for u in everyone.stage1 if u in hosted), tuple(u for u in everyone.stage2 if u in hosted)
        )
        self.vault = Vault(config.vault or settings.run_folder(run_id) / "vault", config.secret)

    @property
    def base(self) -> BaseModel:
        return base_model.load(self.settings.base_source, device=self.settings.device, dtype=self.settings.dtype)

    @property
    def facts(self) -> Facts:
        """The base model's; on a device without loading it, where it was loaded once."""
        if self.parts:
            return base_facts.of(self.base)
        s = self.settings
        return base_facts.facts(s.base_source, device=s.device, dtype=s.dtype)

    @property
    def method(self) -> Method:
        return methods.make(self.settings, self.facts.skeleton)

    def hosted(self, users: Sequence[str], stage: str) -> Sequence[str]:
        """`users`, checked to be this node's. Raises ValueError for a user it does not host."""
        mine = self.roster.stage1 if stage == "stage1" else self.roster.stage2
        for user in users:
            if user not in mine:
                raise ValueError(f"user {user!r} is not hosted here for {stage}")
        return users

    def stage1_rows(self, user: str) -> UserRows:
        pairs = stage1_pairs(self.task, self.corpus.user(user), self._rows_by)
        return UserRows(user, tokenize(pairs, self.base.tokenizer, self.settings.max_length))

    def stage2_rows(self, user: str) -> UserRows:
        pairs = stage2_pairs(self.task, self.corpus.user(user), self._rows_by)
        return UserRows(user, tokenize(pairs, self.base.tokenizer, self.settings.max_length))

    def test_user(self, user: str) -> TestUser:
        queries = test_queries(self.task, self.corpus.user(user), self._rows_by)
        pairs = [self.task.query_pair(query) for query in queries]
        return TestUser(user, queries, tokenize(pairs, self.base.tokenizer, self.settings.max_length))

    def sizes(self) -> dict[str, list[list[object]]]:
        """What the server may know of the users: stage1 [user, items], stage2 [user, items, queries]."""
        s, task = self._rows_by, self.task
        ones, twos = [], []
        for user in self.roster.stage1:
            ones.append([user, len(stage1_pairs(task, self.corpus.user(user), s))])
        for user in self.roster.stage2:
            record = self.corpus.user(user)
            twos.append([user, len(stage2_pairs(task, record, s)), len(test_queries(task, record, s))])
        return {"stage1": ones, "stage2": twos}


@lru_cache(maxsize=2)
def _corpus(data: str, task: str, seed: int) -> Corpus:
    return open_corpus(data, get_task(task), seed=seed)
