"""After stage 1: hand the collective edit to the users who personalize, have them train, and test them.

Only the hand-out carries an array. Stage 2 and the evaluation send a fingerprint down and numbers up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from server_strategy.grid.nodes import RunError
from server_strategy.grid.user_grid import UserGrid


def hand_out(
    grid: UserGrid, users: Sequence[str], arrays: ArrayRecord, warn: Callable[[str], None]
) -> tuple[str, list[str]]:
    """Give every user the final collective edit (counted as stage 1).

    Returns (its fingerprint as the users see it, the users who hold it now); a user who does not is named in a warning
    and takes no further part.
    """
    replies = grid.send(users, RecordDict({"arrays": arrays}), "query.adopt")
    good = _some_or_stop(replies, users, "take the collective edit", warn)
    names = {str(reply.content["node"]["collective"]) for reply in good.values()}
    if len(names) != 1:
        raise RunError(f"all users must hold one collective edit, got {len(names)} different ones")
    return names.pop(), list(good)


def personalize(
    grid: UserGrid, users: Sequence[str], collective: str, warn: Callable[[str], None]
) -> tuple[list[str], list[dict[str, float]]]:
    """Stage 2. Returns (the users that trained, per epoch {"epoch", "loss"}: the mean over rows of all users).

    A user that fails is named in a warning and goes on without private tensors; RunError where all fail.
    """
    grid.phase, grid.round = "stage2", 0
    content = RecordDict({"config": ConfigRecord({"collective": collective})})
    replies = grid.send(users, content, "train.personalize")
    good = _some_or_stop(replies, users, "train private vectors", warn)
    metrics = [_numbers(reply) for reply in good.values()]
    epochs = sorted(key for key in metrics[0] if key.startswith("epoch-"))
    losses = []
    for number, key in enumerate(epochs, 1):
        total = math.fsum(m["num-examples"] for m in metrics)
        mean = math.fsum(m["num-examples"] * m[key] for m in metrics) / total
        losses.append({"epoch": number, "loss": mean})
    return list(good), losses


def test(
    grid: UserGrid, users: Sequence[str], collective: str, warn: Callable[[str], None]
) -> dict[str, dict[str, dict[str, float]]]:
    """The evaluation: user -> arm -> additive statistics."""
    grid.phase, grid.round = "evaluate", 0
    content = RecordDict({"config": ConfigRecord({"collective": collective})})
    good = _some_or_stop(grid.send(users, content, "evaluate"), users, "be tested", warn)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for user, reply in good.items():
        found[user] = _by_arm(_numbers(reply))
    return found


def _numbers(reply: Message) -> dict[str, float]:
    return {key: float(v) for key, v in reply.content.metric_records["metrics"].items() if isinstance(v, int | float)}


def _by_arm(flat: Mapping[str, float]) -> dict[str, dict[str, float]]:
    arms: dict[str, dict[str, float]] = {}
    for key, value in flat.items():
        arm, _, name = key.partition("/")
        arms.setdefault(arm, {})[name] = value
    return arms


def _some_or_stop(
    replies: Mapping[str, Message], users: Sequence[str], what: str, warn: Callable[[str], None]
) -> dict[str, Message]:
    good = {user: reply for user, reply in replies.items() if not reply.has_error()}
    failed = {user: reply.error.reason for user, reply in replies.items() if reply.has_error()}
    if not good:
        reason = next(iter(failed.values()), "no reply came")
        raise RunError(f"none of {len(users)} users could {what}; the first: {reason}")
    for user, reason in failed.items():
        warn(f"user {user!r} could not {what}: {reason}")
    for user in sorted(set(users) - set(replies)):
        warn(f"user {user!r} did not answer when asked to {what}")
    return good
