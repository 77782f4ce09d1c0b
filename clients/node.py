"""One node: the users it hosts, their data, the vault, and the base model that they share.

A device hosts one user (node config `user-id`); a simulated SuperNode hosts a block of them (`partition-id` of
`num-partitions`, which Flower sets). The base model is loaded once a process, on first use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from fed import base_model, methods
from fed.base_model import BaseModel
from fed.batching import tokenize
from fed.choice import Choice
from fed.cohorts import Roster, block, roster, stage1_pairs, stage2_pairs, test_pairs
from fed.evaluation import TestUser
from fed.lamp import submission
from fed.lamp.records import Corpus, open_corpus
from fed.lamp.tasks import get_task
from fed.methods import Method, UserRows
from fed.settings import Settings
from fed.vault import Vault


class Node:
    """Made per message from the run's settings and the node's own config; what is slow is cached per process."""

    def __init__(self, settings: Settings, node_config: Mapping[str, object], run_id: int) -> None:
        self.settings = settings
        self.task = get_task(settings.task)
        self.corpus = _corpus(settings.data_source, settings.task, settings.seed)
        everyone = roster(self.corpus, settings)
        if "user-id" in node_config:
            own = str(node_config["user-id"])
            if own not in everyone.everyone:
                raise ValueError(f"node config user-id must be a user of this run's data, got {own!r}")
            self.part, self.parts = 0, 0
            self.roster = Roster(
                tuple(u for u in everyone.stage1 if u == own), tuple(u for u in everyone.stage2 if u == own)
            )
        else:
            self.part, self.parts = (
                int(str(node_config["partition-id"])),
                int(str(node_config["num-partitions"])),
            )
            if settings.cohorts == "all":
                hosted = set(block(everyone.everyone, self.part, self.parts))
                self.roster = Roster(
                    tuple(u for u in everyone.stage1 if u in hosted),
                    tuple(u for u in everyone.stage2 if u in hosted),
                )
            else:
                self.roster = Roster(
                    block(everyone.stage1, self.part, self.parts),
                    block(everyone.stage2, self.part, self.parts),
                )
        vault = node_config.get("vault")
        self.vault = Vault(Path(str(vault)) if vault else settings.run_folder(run_id) / "vault")

    @property
    def base(self) -> BaseModel:
        return base_model.load(self.settings.base_source, device=self.settings.device, dtype=self.settings.dtype)

    @property
    def method(self) -> Method:
        return methods.make(self.settings, self.base.skeleton)

    def hosted(self, users: Sequence[str], stage: str) -> Sequence[str]:
        """`users`, checked to be this node's. Raises ValueError for a user it does not host."""
        mine = self.roster.stage1 if stage == "stage1" else self.roster.stage2
        for user in users:
            if user not in mine:
                raise ValueError(f"user {user!r} is not hosted here for {stage}")
        return users

    def stage1_rows(self, user: str) -> UserRows:
        pairs = stage1_pairs(self.task, self.corpus.user(user), self.settings)
        return UserRows(user, tokenize(pairs, self.base.tokenizer, self.settings.max_length))

    def stage2_rows(self, user: str) -> UserRows:
        pairs = stage2_pairs(self.task, self.corpus.user(user), self.settings)
        return UserRows(user, tokenize(pairs, self.base.tokenizer, self.settings.max_length))

    def test_user(self, user: str) -> TestUser:
        asked = test_pairs(self.task, self.corpus.user(user), self.settings)
        rows = tokenize([pair for _, pair in asked], self.base.tokenizer, self.settings.max_length)
        return TestUser(user, [query for query, _ in asked], rows)

    @property
    def is_simulated(self) -> bool:
        """Whether this node stands for several devices; a device has a user-id of its own."""
        return self.parts > 0

    @property
    def choice(self) -> Choice | None:
        """The labels to choose from; None where answers are decoded."""
        if self.settings.answer != "choice":
            return None
        return Choice.of(self.task, self.base.tokenizer, self.settings.max_length)

    def keep_answers(self, user: TestUser, arm: str, answers: Sequence[str]) -> None:
        """Write a user's answers beside its private tensors, as a LaMP submission.

        Only in a simulation: on a device they are the user's own texts, and nobody asked to keep them in the clear.
        """
        file = self.vault.folder(user.user_id) / "answers" / f"{arm}.json"
        submission.write(file, self.task, dict(zip((q.id for q in user.queries), answers, strict=True)))

    def sizes(self) -> dict[str, list[list[object]]]:
        """What the server may know of the users: stage1 [user, items], stage2 [user, items, queries]."""
        s, task = self.settings, self.task
        ones, twos = [], []
        for user in self.roster.stage1:
            ones.append([user, len(stage1_pairs(task, self.corpus.user(user), s))])
        for user in self.roster.stage2:
            record = self.corpus.user(user)
            twos.append([user, len(stage2_pairs(task, record, s)), len(test_pairs(task, record, s))])
        return {"stage1": ones, "stage2": twos}


@lru_cache(maxsize=2)
def _corpus(data: str, task: str, seed: int) -> Corpus:
    return open_corpus(data, get_task(task), seed=seed)
