"""One node: the users it hosts, their data, the vault, and the base model that they share.

A device hosts one user (node config `user-id`), on a history of its own or as a user of the run's data; a simulated
SuperNode hosts a block of users. The base model is loaded once a process, on first use; on a device every message is a
new process, so a history that has grown is read again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import Any

from clients.collector import without_collector
from clients.device.node_config import NodeConfig, NodeConfigError
from clients.progress import Progress, say_once
from fed import methods
from fed.answering.choice import Choice
from fed.answering.evaluation import TestUser
from fed.base import facts as base_facts
from fed.base import model as base_model
from fed.base.facts import Facts
from fed.base.model import BaseModel
from fed.forward.batching import Row, tokenize
from fed.forward.budget import decoded
from fed.lamp import cohorts, submission
from fed.lamp.cohorts import Roster, Wording, block, history, roster, stage1_pairs, stage2_pairs, test_pairs
from fed.lamp.own_history import open_history
from fed.lamp.records import Corpus, open_corpus
from fed.lamp.tasks import Pair, Task, get_task
from fed.lamp.user import Query, User
from fed.methods import Method, UserRows
from fed.privacy.vault import Vault
from fed.prompts.before_rows import Prompts
from fed.prompts.plain_wording import PlainWordings
from fed.prompts.profile import Profiles
from fed.resuming.of_run import OfRun
from fed.settings.settings import Settings


class Node:
    """Made per message from the run's settings and the node's own config; what is slow is cached per process.

    Args:
        settings: the run's, as the server sent them.
        config: the node's own.
        run_id: Flower's number of the run; it names the folder that a simulated node's vault is in.
    """

    def __init__(self, settings: Settings, config: NodeConfig, run_id: int) -> None:
        self.part, self.parts = config.part, config.parts
        self.settings = replace(settings, base_model=config.base_model) if config.base_model else settings
        self.task = get_task(settings.task)
        self._rows_by = self.settings
        if config.user_id is not None and config.history is not None:
            # A device that brings its own data does both stages on it, whoever else is in the run.
            self._rows_by = replace(self.settings, cohorts="all", stage1_users=0, stage2_users=0)
            self.corpus = open_history(
                config.history,
                self.task,
                config.user_id,
                lambda line: say_once(f"warning: {line}; until then it is left out"),
            )
        else:
            self.corpus = _corpus(settings.data_source, settings.task, settings.seed)
        by = self._rows_by
        everyone = roster(self.corpus, cohorts=by.cohorts, stage1_users=by.stage1_users, stage2_users=by.stage2_users)
        self.everyone = everyone  # the run's users, whoever hosts them
        if config.user_id is not None:
            if (user := config.user_id) not in everyone.everyone:
                raise NodeConfigError("user-id must be a user of this run's data", repr(user), "or give a history")
            hosted = {user}
        elif settings.cohorts == "all":
            hosted = set(block(everyone.everyone, self.part, self.parts))
        else:
            hosted = {*block(everyone.stage1, self.part, self.parts), *block(everyone.stage2, self.part, self.parts)}
        self.roster = Roster(
            tuple(u for u in everyone.stage1 if u in hosted), tuple(u for u in everyone.stage2 if u in hosted)
        )
        folder = settings.run_folder(run_id)
        self.vault = Vault(config.vault or folder / "vault", config.secret)
        self.of_run = OfRun(self.vault, folder.name, self.settings.unbroken().as_json(), self.settings.of_run())

    @cached_property
    def base(self) -> BaseModel:
        s = self.settings
        with nullcontext() if self.is_simulated else without_collector():
            base = base_model.load(s.base_source, device=s.device, dtype=s.dtype)
        return base_facts.check(base, s.max_length, s.prompt_format)

    @property
    def facts(self) -> Facts:
        """The base model's; on a device without loading it, where it was loaded once."""
        s = self.settings
        if self.parts:
            return base_facts.of(self.base)
        return base_facts.facts(s.base_source, device=s.device, dtype=s.dtype)

    @property
    def method(self) -> Method:
        return methods.make(self.settings, self.facts.skeleton)

    def hosted(self, users: Sequence[str], stage: str) -> Sequence[str]:
        """`users`, checked to be this node's. Raises ValueError for a user it does not host."""
        mine = frozenset(self.roster.stage1 if stage == "stage1" else self.roster.stage2)
        for user in users:
            if user not in mine:
                raise ValueError(f"user {user!r} is not hosted here for {stage}")
        return users

    def stage1_rows(self, user: str) -> UserRows:
        """What the user federates on."""
        prompts = self._prompts(user)
        return UserRows(user, self._rows(user, prompts, self._stage1_pairs(self.corpus.user(user), prompts)))

    def stage2_rows(self, user: str) -> UserRows:
        """What the user's private tensors are trained on."""
        record = self._worded(user)
        prompts = self._prompts(user)
        return UserRows(user, self._rows(user, prompts, self._stage2_pairs(record, prompts)))

    def test_user(self, user: str) -> TestUser:
        """The user's queries, and the rows that ask them."""
        record = self._worded(user) if self.settings.held_out else self.corpus.user(user)
        prompts = self._prompts(user)
        questions = self._test_pairs(record, prompts)
        rows = self._rows(user, prompts, [pair for _, pair in questions], self.choice.longest if self.choice else 0)
        return TestUser(user, [query for query, _ in questions], rows)

    def _stage1_pairs(self, user: User, wording: Wording | None = None) -> list[Pair]:
        by = self._rows_by
        return stage1_pairs(
            self.task, user, cohorts=by.cohorts, max_items=by.max_items, held_out=by.held_out, wording=wording
        )

    def _stage2_pairs(self, user: User, wording: Wording | None = None) -> list[Pair]:
        by = self._rows_by
        return stage2_pairs(self.task, user, max_items=by.max_items, held_out=by.held_out, wording=wording)

    def _test_pairs(self, user: User, wording: Wording | None = None) -> list[tuple[Query, Pair]]:
        by = self._rows_by
        return test_pairs(
            self.task, user, cohorts=by.cohorts, max_queries=by.max_queries, held_out=by.held_out, wording=wording
        )

    @property
    def is_simulated(self) -> bool:
        """Whether this node stands for several devices; a device has a user-id of its own."""
        return self.parts > 0

    @cached_property
    def choice(self) -> Choice | None:
        """The labels to choose from; None where answers are decoded."""
        if self.settings.answer != "choice":
            return None
        return Choice.of(self.task, self.base.tokenizer, self.settings.max_length, self.settings.prompt_format)

    def keep_answers(self, user: TestUser, arm: str, answers: Sequence[str]) -> None:
        """Write a user's answers beside its private tensors, as a LaMP submission.

        Only in a simulation: on a device they are the user's own texts, and nobody asked to keep them in the clear.
        """
        file = self.vault.own_folder(user.user_id) / "answers" / f"{arm}.json"
        submission.write(file, self.task, dict(zip((q.id for q in user.queries), answers, strict=True)))

    def with_own_edit(self, rows: UserRows, *, before_round: int) -> UserRows:
        """The rows with the collective tensors that the user itself trained last in this run, where it did."""
        return replace(rows, own=self.of_run.own(rows.user_id, before_round=before_round))

    def _rows(self, user: str, prompts: Task | Prompts, pairs: Sequence[Pair], room: int = 0) -> list[Row]:
        s = self.settings
        if isinstance(prompts, Prompts) and prompts.left_out:
            say_once(
                f"warning: user {user!r}: {prompts.left_out} of {prompts.asked} retrieved items did not fit into "
                f"max-length = {s.max_length} tokens and were left out"
            )
        return tokenize(pairs, self.base.tokenizer, s.max_length, prompt_format=s.prompt_format, answer_room=room)

    def _seen(self, user_id: str) -> User:
        """The user as training may see it, without the history's held-out items."""
        user = self.corpus.user(user_id)
        return replace(user, profile=history(user, held_out=self.settings.held_out))

    def _worded(self, user_id: str) -> User:
        """The user with plain wordings for inputs, where asked for; missing ones are written, the whole cohort's."""
        s, user = self.settings, self.corpus.user(user_id)
        if s.history_rows == "bare" or self.task.has_inputs(user.profile):
            return user
        latest = s.max_items and s.max_items + s.held_out
        budget = decoded(self.base, s.token_budget)
        plain = PlainWordings(self.vault, self.base, self.task, latest=latest, token_budget=budget)
        if (worded := plain.read(user)) is None:
            progress = Progress(f"plain wordings, node {self.part}, {len(self.roster.stage2)} users")
            written, useless = plain.write([self.corpus.user(one) for one in self.roster.stage2], progress.rows)
            if useless:
                print(
                    f"warning: {useless} of {written} plain wordings are empty or copies; their rows stay bare",
                    flush=True,
                )
            worded = plain.read(user)
        assert worded is not None
        return worded

    def _prompts(self, user_id: str) -> Task | Prompts:
        """How this user's rows are worded: by the task alone, or after retrieved items and a profile text."""
        s = self.settings
        if not s.retrieved and not s.profile:
            return self.task
        user = self._seen(user_id)
        return Prompts(
            self.task,
            user,
            retrieved=s.retrieved,
            profile=self._profile(user) if s.profile else "",
            tokenizer=self.base.tokenizer,
            max_length=s.max_length,
            prompt_format=s.prompt_format,
        )

    def _profile(self, user: User) -> str:
        """The user's profile text; where there is none yet, the cohort hosted here gets its own, in shared batches."""
        budget = decoded(self.base, self.settings.token_budget)
        profiles = Profiles(self.vault, self.base, self.task, seed=self.settings.seed, token_budget=budget)
        text = profiles.read(user)
        if text is None:
            cohort = self.roster.stage2 if user.user_id in self.roster.stage2 else self.roster.stage1
            missing = [member for member in map(self._seen, cohort) if profiles.read(member) is None]
            progress = Progress(f"profiles, node {self.part}, {len(missing)} users")
            profiles.write(missing, lambda count: progress.rows(count, len(missing)))
            text = profiles.read(user)
        assert text is not None
        return text

    def sizes(self) -> dict[str, list[list[object]]]:
        """What the server may know of the users: stage1 [user, items], stage2 [user, items, queries]."""
        by, task, corpus = self._rows_by, self.task, self.corpus
        rows: dict[str, Any] = {"cohorts": by.cohorts, "max_items": by.max_items, "held_out": by.held_out}
        ones = [[user, cohorts.stage1_count(task, corpus, user, **rows)] for user in self.roster.stage1]
        rows["max_queries"] = by.max_queries
        return {
            "stage1": ones,
            "stage2": [[u, *cohorts.stage2_counts(task, corpus, u, **rows)] for u in self.roster.stage2],
        }


@lru_cache(maxsize=2)
def _corpus(data: str, task: str, seed: int) -> Corpus:
    return open_corpus(data, get_task(task), seed=seed)
