"""Stage 1 of a run: the collective edit is trained, round by round or in one place, and handed out to its users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ArrayRecord

from fed.methods import Method
from fed.privacy.vault import NO_COLLECTIVE
from server_strategy import personalization
from server_strategy.checkpoint.history import History
from server_strategy.grid.edits.broadcasts import Broadcasts
from server_strategy.grid.user_grid import UserGrid
from server_strategy.report.run_log import RunLog, say, warn
from server_strategy.rounds import pooled
from server_strategy.rounds.federate import federate
from server_strategy.rounds.participation import Devices
from server_strategy.rounds.strategy import make_strategy


@dataclass(frozen=True, kw_only=True)
class Stage1:
    """Training and hand-out of the collective edit.

    Attributes:
        trainers: the users that federate; where stage 1 is pooled, the centre.
        testers: those that personalize and are tested, who are handed the final edit.
        method: what it federates, by the run's settings.
        history: the rounds that are finished already, and where new ones are kept.
        rows_of_users: how many training rows each user that federates has.
        log: takes what screening finds of a user.
        broadcasts: where the wire is narrow, those of the run.
    """

    trainers: UserGrid
    testers: UserGrid
    method: Method
    history: History
    rows_of_users: Mapping[str, int]
    log: RunLog
    broadcasts: Broadcasts | None

    def run(self) -> tuple[str, list[str]]:
        """Returns (the collective edit's fingerprint, the users who can go on with it).

        Where the method federates nothing, nothing is sent, and all testers go on.

        Raises:
            RunError: a round cannot be averaged, or nobody has the edit.
        """
        settings = self.method.settings
        if not self.method.collective_shapes():
            say(f"stage 1: {settings.method} federates nothing")
            return NO_COLLECTIVE, self.testers.users
        start = self.trainers.translation.to_record(self.history.edit or self.method.initial_collective())
        return self._hand_out(self._pooled(start) if settings.stage1 == "pooled" else self._rounds(start))

    def _pooled(self, start: ArrayRecord) -> ArrayRecord:
        """Central training, as one round; not again, where a run that is gone on with had finished it."""
        say("stage 1: pooled, central training on all users' rows; its bytes are those of the hand-out alone")
        if self.history.finished:
            return start
        rows: list[dict[str, Any]] = []
        trained = pooled.train_pooled(self.trainers, self.method, on_round=rows.append)
        self.history.keep(1, self.trainers.translation.from_record(trained), rows.pop(), [])
        return trained

    def _rounds(self, start: ArrayRecord) -> ArrayRecord:
        """The rounds that are not finished yet, each kept as it ends."""
        settings, translation = self.method.settings, self.trainers.translation
        devices = Devices(settings, self.rows_of_users)
        rows: list[dict[str, Any]] = []
        strategy = make_strategy(
            settings,
            self.method,
            translation=translation,
            fraction=devices.fraction,
            on_round=rows.append,
            on_user=self._tell,
        )
        remembering = [*strategy.remembering, *([self.broadcasts] if self.broadcasts else [])]
        self.history.remind(remembering)

        def keep(number: int, arrays: ArrayRecord, of_devices: dict[str, Any]) -> None:
            self.history.keep(number, translation.from_record(arrays), rows.pop() | of_devices, remembering)

        return federate(
            strategy,
            self.trainers,
            start,
            devices=devices,
            warn=warn,
            first=self.history.finished + 1,
            last=settings.rounds,
            timeout=settings.reply_timeout or None,
            on_finished=keep,
        )

    def _tell(self, number: int, place: int, line: str, left_out: bool) -> None:
        """What screening finds of a user: an error where its edit was left out, else a warning."""
        user = self.trainers.user(place)
        if left_out:
            self.log.add_error("stage1", number, user, line)
        else:
            warn(f"user {user!r}, round {number}: {line}")

    def _hand_out(self, trained: ArrayRecord) -> tuple[str, list[str]]:
        """Of what users then have: on a narrow wire, what the changes lead to."""
        self.testers.round = self.method.settings.stage1_rounds + 1
        arrays = self.testers.broadcast(self.testers.round, trained)
        if self.broadcasts:
            self.log.keep_collective(self.method.whole(self.trainers.translation.from_record(arrays)))
        return personalization.hand_out(self.testers, self.testers.users, arrays, warn, self.method.whole)
