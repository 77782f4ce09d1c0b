"""One device's own history: what its user wrote, in a file that grows while the device is used.

    history.jsonl   an item a line, {"text": …, "title": …} by the task's fields, or a query {"input": …, "gold": …};
                    "id" is optional, on any line. A last line that is still being written is left for the next
                    reading; a line that a crash has damaged, or that breaks a rule, costs that line alone
    history.json    an array of records, LaMP's {"id", "input", "profile"} (with "gold" or "output") or OPPU's
                    {"user_id", "profile", "query"}; the record of this user is taken

Without queries the latest fifth of the items is held out and asked as queries, where the task has an input to ask by
(LaMP_7's bare tweets have none: such a device trains its private edit and is not tested; items that bring their plain
sentence as "input" do).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fed.lamp.json_files.reader import read_records
from fed.lamp.parsing import Place, RecordError, parse_user, question_as_user
from fed.lamp.records import Corpus
from fed.lamp.tasks import Task
from fed.lamp.user import User

HELD_OUT = 5  # one item in so many, the latest
READINGS, SECONDS_BETWEEN = 4, 0.05  # of a file that changes while it is read
_Read = tuple[User, list[RecordError]]


def open_history(path: Path, task: Task, user_id: str, left_out: Callable[[str], None] = lambda _: None) -> Corpus:
    """A corpus of one user. Arguments and errors as of `read_history`."""
    user = read_history(path, task, user_id, left_out)
    sizes = (len(user.profile), len(user.queries))
    alone = (user_id,)
    return Corpus(task, str(path), {"others": alone, "test": alone}, lambda _: sizes, lambda _: user)


def read_history(path: Path, task: Task, user_id: str, left_out: Callable[[str], None] = lambda _: None) -> User:
    """The user whose history the file is, as it stood at one moment, also where it is replaced meanwhile.

    Promise: no line that is damaged or breaks a rule costs another one (tests/fed/lamp/test_own_history.py).

    Args:
        path: the file.
        task: whose fields the items have.
        user_id: the device's user.
        left_out: told of each line that was left out: its number, the rule and the fix, and no word of it.

    Raises:
        RecordError: there is no such file, no usable line in it, or, in a .json file, a record that breaks a rule.
    """
    path = Path(path).expanduser()
    read = _plain if path.suffix == ".jsonl" else _record_of
    for reading in range(READINGS):
        before, result = _stamp(path), None
        if before is not None:
            result = _result(lambda: read(path, task, user_id))
            if result is not None and _stamp(path) == before:
                break
        if reading + 1 < READINGS:
            time.sleep(SECONDS_BETWEEN)
    if result is None:
        raise Place(path).error("the history must be an existing .json or .jsonl file", path.name, "correct the path")
    if isinstance(result, RecordError):
        raise result
    user, errors = result
    for error in errors:
        left_out(error.public)
    return user if user.queries or not task.has_inputs(user.profile) else _hold_out(user, task)


def _result(read: Callable[[], _Read]) -> _Read | RecordError | None:
    """What was read, or why not; None where the file went, as between two names of one that is being replaced."""
    try:
        return read()
    except RecordError as error:
        return error
    except FileNotFoundError:
        return None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when the file is replaced or written; None where there is none."""
    if path.suffix not in (".jsonl", ".json") or not path.is_file():
        return None
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _plain(path: Path, task: Task, user_id: str) -> _Read:
    """A .jsonl history: the user of the lines that obey their rules, and the errors of those left out."""
    left_out: list[RecordError] = []
    usable: dict[str, dict[str, Mapping[str, Any]]] = {"profile": {}, "query": {}}
    try:
        records = list(read_records(path, growing=True, damaged=left_out.append))
    except RecordError as error:  # none is left
        raise (left_out or [error])[0] from None
    given = {str(raw["id"]) for _, raw in records if "id" in raw}
    for number, raw in records:
        place = Place(path, number)
        # A line without an id is called by its number, unless another line has that for its id.
        whole: Mapping[str, Any] = {"id": f"line {number}" if str(number) in given else number, **raw}
        kind = "query" if "input" in raw and "gold" in raw else "profile"
        # One line, one record: its rules are those of a profile of one item, or of one query.
        alone: dict[str, Any] = {"user_id": user_id, "profile": [], "query": [], kind: [whole]}
        try:
            parse_user(alone, task, place, needs_queries=False, needs_profile=False)
            if str(whole["id"]) in usable[kind]:
                raise place.error("every line must have an id of its own", whole["id"], "rename or remove one")
        except RecordError as error:
            left_out.append(error)
        else:
            usable[kind][str(whole["id"])] = whole
    if left_out and not usable["profile"]:
        raise left_out[0]
    raw_user = {"user_id": user_id, **{kind: list(lines.values()) for kind, lines in usable.items()}}
    return parse_user(raw_user, task, Place(path), needs_queries=False), left_out


def _record_of(path: Path, task: Task, user_id: str) -> _Read:
    for number, raw in read_records(path):
        if str(raw.get("user_id", raw.get("id"))) != user_id:
            continue
        if "user_id" not in raw:
            gold = raw.get("gold", raw.get("output"))
            raw = question_as_user(raw, raw["id"], gold) | ({"query": []} if gold is None else {})  # nothing to ask
        return parse_user({"query": [], **raw}, task, Place(path, number), needs_queries=False), []
    raise Place(path).error("a history in .json must hold a record of this device's user-id", "none", "add it")


def _hold_out(user: User, task: Task) -> User:
    count = len(user.profile) // HELD_OUT
    kept, held = user.profile[: len(user.profile) - count], user.profile[len(user.profile) - count :]
    return User(user.user_id, kept, tuple(task.item_as_query(item) for item in held))
