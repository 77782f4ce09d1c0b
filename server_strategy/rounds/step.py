"""The seam of a round: what happens to its messages before they go, and to its replies before they are averaged.

    receive the replies → steps → average → check → record          (`server_strategy.rounds.strategy`)

A step is one concern in a file of its own: it may change the edit that a user is sent or has sent, add a record to a
message, or take a user out. Steps see the edits as the strategies do (`Translation.edit_of`, `Translation.put_edit`),
whatever dtype they have on the wire. What a step must remember from round to round, it keeps itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import Message

from fed.methods.method import Tensors


@dataclass(frozen=True)
class Round:
    """What every step may know of the round.

    Attributes:
        number: from 1 on.
        start: the collective edit that the round starts from; every user is sent it, unless a step sends another.
    """

    number: int
    start: Tensors


class Step:
    """One step of every round. It overrides what it needs; a step of neither method changes nothing.

    Promise: steps run in the order of the list, on messages and on replies alike, and no step sees a failed reply
    (tests/server_strategy/rounds/test_strategy.py).
    """

    def before_messages(self, current: Round, messages: list[Message]) -> list[Message]:
        """The messages to send, one a user; `metadata.dst_node_id` is the user's number in the `UserGrid`.

        Args:
            current: the round.
            messages: those of the users drawn for the round, in the order of the draw. Users that get the same share
                their records: give a message another `content`, and leave the records themselves as they are.
        """
        return messages

    def after_replies(self, current: Round, replies: list[Message]) -> list[Message]:
        """The replies to average; at least one must be left.

        Args:
            current: the round, as `before_messages` saw it.
            replies: those of the users that trained, sorted by the user's number (`metadata.src_node_id`). Each holds
                `arrays`, the edit, and `metrics`: `num-examples`, its weight in the average, and `train-loss`.
        """
        return replies
