"""A node's users by the portion: what a portion needs in memory is freed before the next begins.

Users of a portion share batches; rows, gradients, optimizer state and private tensors of one portion alone are held at
a time, so that a node of a thousand users takes no more than one of a hundred.

Promise: which portion a user is in decides nothing but rounding (tests/clients/test_portions.py), and of its training
not even that where padding rounds no product (`fed.training.train`).
"""

from __future__ import annotations

from collections.abc import Sequence

SIZE = 64  # users: their rows fill a batch of any token budget in use, and a user's state is some megabytes at most


def portions(users: Sequence[str]) -> list[range]:
    """The places of the users in the list, portion by portion."""
    return [range(start, min(start + SIZE, len(users))) for start in range(0, len(users), SIZE)]


def said(portion: range, users: Sequence[str]) -> str:
    """A portion for a line of progress."""
    if len(portion) == len(users):
        return f"{len(users)} users"
    return f"users {portion[0] + 1} to {portion[-1] + 1} of {len(users)}"
