"""Messages that carry several users at once: unpack the request, pack one reply per user, in few objects.

A request holds what all its users get, once, what a user gets of its own under `<place in the list>/<name>`, and their
ids in the record `host`; a reply holds each user's records under `<place in the list>/<name>`. A user that fails has an
`error` record, and the others are not touched.

Flower ships every record and every array of a message as an object of its own, by a request of its own: four for a
user in stage 1. So a reply for many users is bundled: the users' arrays are the rows of a few, and each kind of record
is one record of all users, under `<place>/<key>`, still of its own type: where numbers go, there is room for numbers
alone. The server (`server_strategy.grid.packing.by_user`) takes them apart and counts each user as if alone.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fed.base.sources import BaseModelError
from fed.communication.quantization import NotFinite
from fed.plain_text import plain
from fed.privacy.tensor_files import VaultError
from fed.settings.rules import SettingsError

ERROR_CODE = 100  # outside Flower's own codes
Numbers = dict[str, int | float]
AT_MOST = 4 << 20  # bytes of users' arrays in one; a single user's may be larger
_RULES: dict[type[Exception], str] = {
    BaseModelError: "base-model must be one that the device can load",
    VaultError: "the vault must open and be of this base model and collective edit",
    OSError: "the device must be able to read and write its own files",
}


class TrainingError(ValueError):
    """A user's training did not stay finite.

    Attributes:
        public: the rule without the step or the loss, for the server's eyes.
    """

    public = "the training must stay finite; the device's own log has the rest"


def users_of(message: Message) -> list[str]:
    """The user ids that the message is for, in the order of the reply."""
    return [str(user) for user in json.loads(str(message.content.config_records["host"]["users"]))]


def refusal_of(message: Message) -> str:
    """Why the server lets this device take no part, as a plain text, whatever it sent."""
    record = message.content.config_records.get("refusal") if message.has_content() else None
    return plain(str(record["reason"])) if record and "reason" in record else "no reason was given"


def put_metrics(content: RecordDict, place: int, values: Numbers) -> None:
    """Numbers of the user at `place`."""
    content[f"{place}/metrics"] = MetricRecord(dict(values))


def put_timing(content: RecordDict, began: float, ended: float) -> None:
    """When the node was at work, as `time.time`: for a simulation's account of its own time. No device sends it."""
    content["timing"] = MetricRecord({"began": began, "ended": ended})


def put_error(content: RecordDict, place: int, reason: str) -> None:
    """Why the user at `place` has nothing to send."""
    content[f"{place}/error"] = ConfigRecord({"reason": plain(reason)})


def put_failure(content: RecordDict, place: int, error: Exception, *, device: bool) -> None:
    """That something of the user at `place` failed; of a device the bare rule, as `refuse`."""
    put_error(content, place, _said(error, device=device))


def put_failures(content: RecordDict, users: Sequence[str], problems: Mapping[str, Exception], *, device: bool) -> None:
    """Of those of the users who have a problem, as `put_failure`."""
    for user, problem in problems.items():
        put_failure(content, users.index(user), problem, device=device)


@contextmanager
def failing_alone(content: RecordDict, place: int, *, device: bool) -> Iterator[None]:
    """A vault that is damaged, a disk that is full or an edit that is not finite fails the user at `place` alone.

    Promise: the others of its message are not touched (tests/integration/test_failures.py).
    """
    try:
        yield
    except NotFinite as error:
        put_failure(content, place, TrainingError(str(error)), device=device)
    except (VaultError, OSError) as error:
        put_failure(content, place, error, device=device)


def refuse(message: Message, error: Exception, *, device: bool) -> Message:
    """A reply that says in one line which rule was broken; from a device without any value, path or text of its own."""
    return Message(Error(ERROR_CODE, _said(error, device=device)), reply_to=message)


def _said(error: Exception, *, device: bool) -> str:
    """What the server hears of an error; a device keeps the rest in its own log."""
    reason = plain(str(error) or type(error).__name__)
    if not device:
        return reason
    print(f"error: {reason}", file=sys.stderr, flush=True)
    return plain(_rule(error))


def print_defect() -> None:
    """The traceback of what is being handled, for the device's own log: each line marked, and plain."""
    for line in traceback.format_exc().splitlines():
        indent = len(line) - len(line.lstrip())
        print(f"| {' ' * indent}{plain(line)}", file=sys.stderr, flush=True)


def _rule(error: Exception) -> str:
    """The rule that an error is about, and no more: what may leave a device."""
    if isinstance(error, SettingsError):  # the run's own settings, which the server sent
        return str(error)
    public = getattr(error, "public", "")
    if isinstance(public, str) and public:
        return public
    for kind, rule in _RULES.items():
        if isinstance(error, kind):
            return f"{rule}; the device's own log has the rest"
    return f"{type(error).__name__} on the device, whose own log has the rest"


def bundled(reply: RecordDict) -> RecordDict:
    """The same records in few objects; a reply for one user, as a device's, stays as it is.

    Promise: what the server takes apart is, record for record, what was put in (tests/clients/test_messages.py).
    """
    if len({key.partition("/")[0] for key in reply}) < 2:
        return reply
    # The users' arrays as rows of a few, each of AT_MOST bytes and of one length; and whose the rows are.
    stacks: list[list[tuple[int, np.ndarray[Any, Any]]]] = []  # (user's place, row)
    for key, arrays in reply.array_records.items():
        row = arrays["edit"].numpy()
        if not stacks or stacks[-1][0][1].shape != row.shape or (len(stacks[-1]) + 1) * row.nbytes > AT_MOST:
            stacks.append([])
        stacks[-1].append((int(key.partition("/")[0]), row))
    bundle = RecordDict()
    for number, stack in enumerate(stacks):
        bundle[f"users/arrays/{number}"] = ArrayRecord({"edit": Array(np.stack([row for _, row in stack]))})
    if stacks:
        places = {str(number): json.dumps([place for place, _ in stack]) for number, stack in enumerate(stacks)}
        bundle["users/places"] = ConfigRecord(dict(places))
    # The users' other records, each kind as one.
    record: Any  # a MetricRecord or a ConfigRecord
    for key, record in (*reply.metric_records.items(), *reply.config_records.items()):
        place, _, name = key.partition("/")
        if f"users/{name}" not in bundle:
            bundle[f"users/{name}"] = type(record)()
        of_all: Any = bundle[f"users/{name}"]
        for field, value in record.items():
            of_all[f"{place}/{field}"] = value
    return bundle
