"""Who takes part in a round to its end: devices that drop out, that are slow, that come too late or are not needed.

A model of devices, seeded, so that a run can show what partial participation does to time and loss:

    drop       a device that is asked drops out of the round with probability `drop-rate`
    pace       its seconds per training step: `slow-rate` for the slowest device, evenly spread below that
    arrival    steps × pace, in simulated seconds; nobody waits for them
    deadline   who would arrive after `round-deadline` comes too late
    needed     of more users than `fraction` says (`over-selection`), the first so many to arrive are averaged

Who drops out, is late or is not needed has been sent the edit, and the ledger has those bytes; it sends nothing, and is
not trained. The round ends when enough have arrived, else at the deadline, else with the last that did not drop out.

Everything follows from the seed, the round and the user, so a run in one process and one on Flower agree.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fed.settings.settings import Settings


@dataclass(frozen=True)
class Attendance:
    """A round's users by what becomes of them, and its length in simulated seconds."""

    present: list[str]
    dropped: list[str]
    late: list[str]
    unneeded: list[str]
    seconds: float

    @property
    def absent(self) -> list[str]:
        """Whose reply the round goes without."""
        return [*self.dropped, *self.late, *self.unneeded]

    def as_row(self) -> dict[str, Any]:
        """For the round's row."""
        return {
            "dropped": len(self.dropped),
            "late": len(self.late),
            "unneeded": len(self.unneeded),
            "simulated_seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Devices:
    """The model of a run's devices.

    Attributes:
        settings: `drop-rate`, `slow-rate`, `round-deadline`, `over-selection`, `fraction` and how users train.
        rows: user -> training rows, of all users that federate.
    """

    settings: Settings
    rows: Mapping[str, int]

    @property
    def modelled(self) -> bool:
        """Whether the settings ask for any of this; otherwise all users that are drawn take part."""
        s = self.settings
        return bool(s.drop_rate or s.slow_rate or s.over_selection > 1)

    @property
    def needed(self) -> int:
        """How many replies a round averages: `fraction` of the users, as Flower counts them, and one at least."""
        return max(1, int(len(self.rows) * self.settings.fraction))

    @property
    def fraction(self) -> float:
        """The share of users to draw: that of the settings, or as many more as `over-selection` says."""
        users = len(self.rows)
        if self.settings.over_selection == 1:
            return self.settings.fraction
        drawn = min(users, math.ceil(self.needed * self.settings.over_selection - 1e-9))
        return min(1.0, (drawn + 0.5) / users)  # Flower rounds down

    def pace(self, user: str) -> float:
        """The device's simulated seconds per training step, the same in every round."""
        return self.settings.slow_rate * _uniform(self.settings.seed, "pace", user)

    def arrival(self, user: str) -> float:
        """When the user's reply would arrive, in simulated seconds from the round's beginning."""
        s = self.settings
        steps = s.stage1_epochs * math.ceil(self.rows[user] / s.batch_size)
        return steps * self.pace(user)

    def attend(self, users: Sequence[str], round_number: int, attempt: int = 0) -> Attendance:
        """What becomes of the users that are drawn for a round.

        Args:
            users: those that are asked.
            round_number: from 1 on.
            attempt: 0; 1 where the round is repeated.
        """
        s = self.settings
        name = (round_number, attempt) if attempt else (round_number,)
        dropped = [user for user in users if _uniform(s.seed, "drop", *name, user) < s.drop_rate]
        gone = frozenset(dropped)
        # Who arrives, the quickest first; of equally quick ones in an order drawn for the round.
        arrivals = sorted(
            (self.arrival(user), _uniform(s.seed, "order", *name, user), user) for user in users if user not in gone
        )
        in_time = [(at, user) for at, _, user in arrivals if not s.round_deadline or at <= s.round_deadline]
        late = [user for _, _, user in arrivals[len(in_time) :]]
        present = in_time[: self.needed]
        # The round ends when enough are there, else at its deadline, else with the last who comes.
        last = present[-1][0] if present else 0.0
        seconds = last if len(present) == self.needed or not s.round_deadline else float(s.round_deadline)
        unneeded = [user for _, user in in_time[self.needed :]]
        return Attendance([user for _, user in present], dropped, late, unneeded, seconds)


def _uniform(seed: int, *name: object) -> float:
    """A number in [0, 1), drawn for this name alone, the same on every machine."""
    return random.Random(repr((seed, *name))).random()
