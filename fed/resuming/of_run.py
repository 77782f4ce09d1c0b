"""What a vault holds of one run, so that a run which was broken off goes on without doing anything twice.

A user's private edit says of which run it is, and what its training did: stage 2 leaves out who is done. A method whose
users keep their own collective edit (`Method.keeps_own`) needs, in a round that is done again, the one from before it:
the vault keeps two, the latest round's and the one before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from torch import Tensor

from fed.privacy.tensor_files import VaultError
from fed.privacy.vault import Vault
from fed.resuming.lock import holding

OWN = ("stage1", "stage1-before")  # what the user federated: the latest round's, and the one before
FEEDBACK = ("feedback", "feedback-before")  # what its last change left out
BROADCAST = ("broadcast", "broadcast-before")  # the edit that it was sent
Numbers = dict[str, int | float]


@dataclass(frozen=True)
class OfRun:
    """The part of a vault that is of one run.

    Attributes:
        vault: where the users' files are.
        run: the run's name, which stays the same when the run is gone on with.
        settings: JSON of all of the run's settings.
        deciding: those of them that decide the run's numbers.
    """

    vault: Vault
    run: str
    settings: str
    deciding: Mapping[str, object]

    def held(self) -> AbstractContextManager[None]:
        """The vault is this run's inside (`fed.resuming.lock`)."""
        return holding(self.vault.root, self.run)

    def write(
        self, edits: Mapping[str, tuple[Mapping[str, Tensor], Numbers]], *, base: str, collective: str
    ) -> dict[str, OSError | VaultError]:
        """Keep users' private edits, and with each what its training did; returns why some are not kept.

        Args:
            edits: user -> (tensors, numbers).
            base, collective: fingerprints of what they were trained on.
        """
        of_run = {"run": self.run, "deciding": self.deciding}
        marked = {
            user_id: (tensors, json.dumps(of_run | {"numbers": numbers}, sort_keys=True))
            for user_id, (tensors, numbers) in edits.items()
        }
        return self.vault.write_all(marked, base=base, collective=collective, settings=self.settings)

    def done(self, user_id: str, *, base: str, collective: str) -> Numbers | None:
        """What the training of the user's private edit did; None where this run has not trained it, or it is damaged.

        Args:
            user_id: whose.
            base, collective: fingerprints of what it must have been trained on.
        """
        try:
            header = self.vault.open(user_id).header
            done = json.loads(header.get("done", "{}"))
        except (VaultError, OSError):  # nothing there, or not whole: it is trained again
            return None
        made = (done.get("run"), done.get("deciding"), header.get("base"), header.get("collective"))
        return dict(done["numbers"]) if made == (self.run, dict(self.deciding), base, collective) else None

    def unreadable(
        self, users: Sequence[str], *, base: str, collective: str, method: str, task: str
    ) -> dict[str, ValueError | OSError]:
        """Those of the users whose private edit is there and cannot be read, and why.

        Args:
            users: whom to ask about.
            base, collective, method, task: what the edit must be for; one for something else is not this run's affair.
        """
        problems: dict[str, ValueError | OSError] = {}
        for user_id in filter(self.vault.has, users):
            try:
                if self.vault.has(user_id, collective=collective, method=method, task=task):
                    self.vault.read(user_id, base=base, collective=collective, method=method, task=task)
                else:
                    self.vault.open(user_id)
            except (VaultError, OSError) as problem:
                problems[user_id] = problem
        return problems

    def keep_own(
        self, user_id: str, tensors: Mapping[str, Tensor], round_number: int, *, names: tuple[str, str] = OWN
    ) -> None:
        """Keep what the user federated in a round, or what else is of a round, and that of before it. Raises OSError.

        Args:
            user_id: whose.
            tensors: what to keep.
            round_number: the round's.
            names: what the latest and the one before are kept as.
        """
        latest, before = names
        entry = self._kept(user_id, latest)
        if entry and int(entry[1].get("round", 0)) < round_number:
            self.vault.keep(user_id, before, *entry)
        self.vault.keep(user_id, latest, tensors, {"run": self.run, "round": str(round_number)})

    def own(self, user_id: str, *, before_round: int, names: tuple[str, str] = OWN) -> dict[str, Tensor] | None:
        """What `keep_own` kept last in this run before a round; None where there is nothing, or it is damaged."""
        for name in names:
            entry = self._kept(user_id, name)
            if entry and int(entry[1].get("round", 0)) < before_round:
                return entry[0]
        return None

    def kept(self, user_id: str, names: tuple[str, str]) -> list[dict[str, Tensor]]:
        """All that `keep_own` kept under these names in this run, and that is whole; the latest first."""
        entries = (self._kept(user_id, name) for name in names)
        return [tensors for tensors, _ in filter(None, entries)]

    def _kept(self, user_id: str, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        try:
            entry = self.vault.kept(user_id, name)
        except VaultError as problem:
            print(f"warning: {problem}; the user goes on without it", flush=True)
            return None
        return entry if entry and entry[1].get("run") == self.run else None
