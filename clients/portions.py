"""A node's users by the group: what a group needs in memory is freed before the next begins.

Users of a group share batches; rows, gradients, optimizer state and private tensors of one group alone are held at a
time, so that a node of a thousand users takes no more than one of a hundred. Which group a user is in decides nothing
but rounding, and of its training not even that where padding rounds no product (`fed.training.train`).
"""

from __future__ import annotations

from collections.abc import Sequence

SIZE = 64  # users: their rows fill a batch of any token budget in use, and one's state is some megabytes at most


def portions(users: Sequence[str]) -> list[range]:
    """The places of the users in the list, group by group."""
    return [range(start, min(start + SIZE, len(users))) for start in range(0, len(users), SIZE)]


def said(group: range, users: Sequence[str]) -> str:
    """A group for a line of progress."""
    if len(group) == len(users):
        return f"{len(users)} users"
    return f"users {group[0] + 1} to {group[-1] + 1} of {len(users)}"
