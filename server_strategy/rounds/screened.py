"""The step that holds users' edits against each other: a change far above the round's median is its user's error.

It stands first, so that no later step keeps or averages what it leaves out. What a user sends alone tells, its schema,
is checked before (`server_strategy.screening.replies`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from flwr.app import Message

from server_strategy.grid.edits.translation import Translation
from server_strategy.rounds.numbers import number_of
from server_strategy.rounds.step import Round, Step
from server_strategy.screening.sizes import outside

OnUser = Callable[[int, int, str, bool], None]  # (round, the user's number, a line, whether it is left out)
MOST_OF_THE_WEIGHT = 0.5


class Screened(Step):
    """Leaves out every edit that changed more than `bound` times the median, and says whose.

    Promise: whatever fewer than half of the users send, their mean moves by no more than the bound times the median
    change (tests/server_strategy/rounds/test_screened.py).

    Args:
        translation: between edits and arrays.
        bound: times the median; 0 leaves all in.
        on_user: told of each user that is left out, and why, and of one of three or more who has most of the weight.
    """

    def __init__(self, translation: Translation, *, bound: float, on_user: OnUser | None = None) -> None:
        self._translation, self._bound, self._on_user = translation, bound, on_user

    def after_replies(self, current: Round, replies: list[Message]) -> list[Message]:
        reasons = outside(map(self._translation.edit_of, replies), current.start, self._bound)
        for place, reason in reasons.items():
            self._tell(current, replies[place], reason, left_out=True)
        within = [reply for place, reply in enumerate(replies) if place not in reasons]
        weights = [number_of(reply, "num-examples") for reply in within]
        for reply, weight in zip(within, weights, strict=True):
            share = weight / math.fsum(weights)
            if len(within) > 2 and share > MOST_OF_THE_WEIGHT:
                self._tell(current, reply, f"it has {share:.0%} of the round's weight", left_out=False)
        return within

    def _tell(self, current: Round, reply: Message, line: str, *, left_out: bool) -> None:
        if self._on_user is not None:
            self._on_user(current.number, reply.metadata.src_node_id, line, left_out)
