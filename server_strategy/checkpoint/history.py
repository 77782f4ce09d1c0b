"""The finished rounds of a run, whether of this process or of one before it, and where each new one is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fed.methods.method import Tensors
from server_strategy.checkpoint import checkpoint, memory, resume
from server_strategy.checkpoint.checkpoint import Checkpoint
from server_strategy.grid.nodes import RunError
from server_strategy.report.run_log import RunLog, warn


class History:
    """Begins with the run, empty or from a checkpoint.

    Args:
        folder: the run's.
        identity: what makes the run this run (`resume.identity`).
        log: takes over what is finished, and hears of each new round.
        whole: the collective edit as it is kept for use (`Method.whole`).
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], log: RunLog, whole: Callable[[Tensors], Tensors]
    ) -> None:
        self._folder, self._identity, self._log, self._whole = folder, dict(identity), log, whole
        self._saved = Checkpoint(0, self._identity)

    @property
    def finished(self) -> int:
        """How many rounds of stage 1 are finished."""
        return self._saved.round

    @property
    def edit(self) -> Tensors:
        """The collective edit after the last of them; empty before round 1."""
        return self._saved.edit

    def begin(self, saved: Checkpoint | None) -> None:
        """Go on from a checkpoint, or keep that the run has begun.

        Raises:
            RunError: the checkpoint is of another base model or of other users.
        """
        if saved is None:
            checkpoint.write(self._folder, self._saved)
            return
        resume.check(saved, self._identity, warn)
        self._saved = saved
        self._log.go_on(saved.rows, saved.entries, saved.errors)
        if saved.edit:  # the process may have ended between the checkpoint and this file
            self._log.keep_collective(self._whole(saved.edit))

    def remind(self, remembering: Sequence[object]) -> None:
        """Give a strategy, its steps and the broadcasts what they remembered after the last finished round.

        Raises:
            RunError: others remembered it, as in a checkpoint of a release whose narrow wire knew no changes.
        """
        if self._saved.forms and len(self._saved.forms) != len(remembering):
            raise RunError(
                f"resume goes on with what {len(remembering)} parts of the run remembered, and the checkpoint in "
                f"{str(self._folder)!r} is of a release that had {len(self._saved.forms)}; start a new run"
            )
        if self._saved.forms:
            memory.remind(remembering, self._saved.memory, self._saved.forms)

    def keep(self, number: int, edit: Tensors, row: dict[str, Any], remembering: Sequence[object]) -> None:
        """Keep a round that is finished: first the checkpoint, then what one reads.

        Args:
            number: the round's.
            edit: the collective edit that it ended with.
            row: its row of `rounds.jsonl`.
            remembering: what the strategy and its steps remember for the next.
        """
        tensors, forms = memory.remembered(remembering)
        rows, entries = [*self._log.rounds, row], self._log.ledger.entries
        finished = Checkpoint(number, self._identity, edit, tensors, forms, rows, entries, self._log.errors)
        checkpoint.write(self._folder, finished)
        self._log.keep_collective(self._whole(edit))
        self._log.add_round(row)
