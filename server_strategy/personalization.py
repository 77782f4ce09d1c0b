"""After stage 1: hand the collective edit to the users who personalize, have them train, and test them.

Only the hand-out carries an array. Stage 2 and the evaluation send a fingerprint down and numbers up.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fed.methods.method import Tensors
from fed.number_row import NumberRow
from fed.privacy.tensor_files import fingerprint
from server_strategy.grid.asking import Answers, ask
from server_strategy.grid.nodes import RunError
from server_strategy.grid.user_grid import UserGrid

T = TypeVar("T")
Whole = Callable[[Tensors], Tensors]
_ANOTHER = "the collective edit that it holds must be the one that was handed out"


def hand_out(
    grid: UserGrid, users: Sequence[str], arrays: ArrayRecord, warn: Callable[[str], None], whole: Whole
) -> tuple[str, list[str]]:
    """Give every user the final collective edit (counted as stage 1).

    Args:
        grid: the users as nodes.
        users: who is handed the edit.
        arrays: the edit, as strategies see it.
        warn: called with a line about each user who did not take it; such a user takes no further part.
        whole: what travels -> the edit that users hold (`Method.whole`).
    Returns:
        (the edit's fingerprint as the users see it, the users who hold it now).
    Raises:
        RunError: nobody took it.
    """
    handed_out = fingerprint(whole(grid.translation.arrived(arrays)))
    content = RecordDict({"arrays": arrays})
    answers = ask(grid, users, content, "query.adopt", lambda reply: reply.content["node"]["collective"] == handed_out)
    refused = {user: _ANOTHER for user, same in answers.values.items() if not same}
    for user in refused:
        grid.tell_error(user, _ANOTHER)
    return handed_out, list(_some_or_stop(answers, users, "take the collective edit", warn, refused))


def personalize(
    grid: UserGrid, users: Sequence[str], collective: str, warn: Callable[[str], None]
) -> tuple[list[str], list[dict[str, float]]]:
    """Stage 2: each user trains its private tensors and keeps them.

    Args:
        grid: the users as nodes.
        users: who trains.
        collective: the fingerprint of the edit that they train on top of.
        warn: called with a line about each user who could not; such a user goes on without private tensors.
    Returns:
        (the users that trained, per epoch {"epoch", "loss"}: the mean over rows of all users that say theirs).
    Raises:
        RunError: all fail.
    """
    grid.phase, grid.round = "stage2", 0
    content = RecordDict({"config": ConfigRecord({"collective": collective})})
    answers = ask(grid, users, content, "train.personalize", lambda reply: NumberRow(_numbers(reply)))
    trained = _some_or_stop(answers, users, "train private vectors", warn)
    metrics = list(trained.values())
    epochs = {key for of_user in metrics for key in of_user if key.startswith("epoch-")}
    losses: list[dict[str, float]] = []
    for number, key in enumerate(sorted(epochs, key=lambda key: int(key[len("epoch-") :])), 1):
        with_loss = [of_user for of_user in metrics if key in of_user]  # a device may keep its losses to itself
        rows = math.fsum(of_user["num-examples"] for of_user in with_loss)
        mean = math.fsum(of_user["num-examples"] * of_user[key] for of_user in with_loss) / rows
        losses.append({"epoch": number, "loss": mean})
    return list(trained), losses


def test(
    grid: UserGrid, users: Sequence[str], collective: str, warn: Callable[[str], None]
) -> dict[str, dict[str, Mapping[str, float]]]:
    """The evaluation: user -> arm -> additive statistics, of those who could be tested; arguments as for stage 2."""
    grid.phase, grid.round = "evaluate", 0
    content = RecordDict({"config": ConfigRecord({"collective": collective})})
    answers = ask(grid, users, content, "evaluate", lambda reply: _by_arm(_numbers(reply)))
    return _some_or_stop(answers, users, "be tested", warn)


def _numbers(reply: Message) -> dict[str, float]:
    return {key: float(v) for key, v in reply.content.metric_records["metrics"].items() if isinstance(v, int | float)}


def _by_arm(flat: Mapping[str, float]) -> dict[str, Mapping[str, float]]:
    arms: dict[str, dict[str, float]] = {}
    for key, value in flat.items():
        arm, _, name = map(sys.intern, key.partition("/"))  # one text for all users
        arms.setdefault(arm, {})[name] = value
    return {arm: NumberRow(numbers) for arm, numbers in arms.items()}


def _some_or_stop(
    answers: Answers[T],
    users: Sequence[str],
    what: str,
    warn: Callable[[str], None],
    refused: Mapping[str, str] | None = None,
) -> dict[str, T]:
    """The valid answers by user, a warning for each user without one. Raises RunError where there is none at all.

    refused: users whose answers, though no errors, are not valid, and why.
    """
    failed = dict(sorted({**answers.errors, **(refused or {})}.items()))
    valid_answers = {user: value for user, value in answers.values.items() if user not in failed}
    if not valid_answers:
        reason = next(iter(failed.values()), "no reply came")
        raise RunError(f"none of {len(users)} users could {what}; the first: {reason}")
    for user, reason in failed.items():
        warn(f"user {user!r} could not {what}: {reason}")
    for user in sorted(set(users) - answers.values.keys() - answers.errors.keys()):
        warn(f"user {user!r} did not answer when asked to {what}")
    return valid_answers
