"""From one user's tensors to everybody's bytes: federated training, storage, and edge-cloud serving.

All sizes are payload bytes (tensors alone); Flower's own overhead is measured, not derived. Results are flat, so
that each is one row of a table.
"""

from __future__ import annotations

from dataclasses import dataclass

from fed.communication.costs import Cost
from fed.communication.wire import bytes_of, whole_dtype

UPLINKS = (1, 10, 100)  # Mbit/s, 10⁶ bits a second
CROWDS = (100, 10_000, 1_000_000)  # users


@dataclass(frozen=True)
class Traffic:
    """Federated training in payload bytes; down is server to user, up is user to server.

    Attributes:
        sampled: users of one round. messages: all of them, the hand-out too.
        message_down, message_up: one user's, in a round; on a narrow wire that of a user who has the last broadcast.
        round_down, round_up: all sampled users', in a round; down the mean of the rounds.
        hand_out: the final tensors to every user, once. per_user: total over users, a mean.
    """

    users: int
    sampled: int
    rounds: int
    messages: int
    message_down: int
    message_up: int
    round_down: int
    round_up: int
    rounds_down: int
    rounds_up: int
    hand_out: int
    total: int
    per_user: float


def federated_traffic(
    cost: Cost, *, users: int, rounds: int, fraction: float = 1.0, dtype: str = "float32", hand_out: bool = True
) -> Traffic:
    """What stage 1 costs: in each round every sampled user gets one message and sends one, as in Flower.

    Args:
        fraction: of users sampled in a round; int(users · fraction) of them, at least one, as Flower's strategies do.
        hand_out: also send the final tensors once to every user, who personalizes on top of them or answers with them.
    On a narrow wire a user without the last broadcast is sent the whole edit in float32: everybody in round 1; then, as
    users are drawn at random, the share of users that a round does not ask; at the end whom the last did not ask.
    A method that federates nothing sends no message.
    """
    if users < 1:
        raise ValueError(f"users must be at least 1, got {users}")
    if rounds < 0:
        raise ValueError(f"rounds must not be negative, got {rounds}")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must lie in (0, 1], got {fraction}")
    message = cost.federated_bytes(dtype)
    sampled = max(1, int(users * fraction)) if message else 0
    handed = users if hand_out and message else 0
    whole = bytes_of(cost.federated, whole_dtype(dtype))
    up = message * sampled
    # Down: changes to the users of the round before, whole edits to the others.
    have = sampled / users
    rounds_down = round(sampled * (whole + (rounds - 1) * (have * message + (1 - have) * whole))) if rounds else 0
    having = min(sampled, handed) if rounds else 0
    hand_out_bytes = having * message + (handed - having) * whole
    total = up * rounds + rounds_down + hand_out_bytes
    return Traffic(
        users=users,
        sampled=sampled,
        rounds=rounds,
        messages=2 * sampled * rounds + handed,
        message_down=message,
        message_up=message,
        round_down=rounds_down // rounds if rounds else up,
        round_up=up,
        rounds_down=rounds_down,
        rounds_up=up * rounds,
        hand_out=hand_out_bytes,
        total=total,
        per_user=total / users,
    )


@dataclass(frozen=True)
class Storage:
    """Bytes at rest.

    Attributes:
        provision: what a new device receives: the federated tensors (frozen ones come from a seed).
        device: what it keeps: federated, frozen and private tensors. private: of these, the user's own.
        server: a server that keeps everybody's private tensors beside the shared ones, for `users` users.
    """

    users: int
    provision: int
    device: int
    private: int
    server: int


def storage(cost: Cost, *, users: int, dtype: str = "float32") -> Storage:
    """What one device keeps, and a server that hosts all these users (users=0: one that leaves the private to them)."""
    if users < 0:
        raise ValueError(f"users must not be negative, got {users}")
    shared, private = cost.federated_bytes(dtype) + cost.frozen_bytes(dtype), cost.private_bytes(dtype)
    return Storage(
        users=users,
        provision=cost.federated_bytes(dtype),
        device=shared + private,
        private=private,
        server=shared + users * private,
    )


@dataclass(frozen=True)
class Serving:
    """Edge-cloud serving on one uplink: bytes uploaded at a use and in a day, and the seconds that takes."""

    uses_per_day: int
    uplink_mbit_s: float
    use: int
    day: int
    seconds_per_use: float
    seconds_per_day: float


def serving(cost: Cost, *, uses_per_day: int, uplink: float, dtype: str = "float32") -> Serving:
    """The paper's edge-cloud setting: the cloud holds base and shared tensors, and the device uploads its private
    tensors each time it uses the cloud model. uplink: Mbit/s, 10⁶ bits a second; latency and headers left out.
    """
    if uses_per_day < 0:
        raise ValueError(f"uses-per-day must not be negative, got {uses_per_day}")
    if not 0 < uplink < float("inf"):
        raise ValueError(f"an uplink must be a positive number of Mbit/s, got {uplink}")
    use = cost.private_bytes(dtype)
    seconds = use * 8 / (uplink * 1e6)
    return Serving(
        uses_per_day=uses_per_day,
        uplink_mbit_s=uplink,
        use=use,
        day=use * uses_per_day,
        seconds_per_use=seconds,
        seconds_per_day=seconds * uses_per_day,
    )
