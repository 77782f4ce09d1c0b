"""One device's own history: what its user wrote, in a file that grows while the device is used.

    history.jsonl   an item a line, {"text": …, "title": …} by the task's fields, or a query {"input": …, "gold": …};
                    "id" is optional. A last line that is still being written is left for the next reading
    history.json    an array of records, LaMP's {"id", "input", "profile"} (with "gold" or "output") or OPPU's
                    {"user_id", "profile", "query"}; the record of this user is taken

Without queries the latest fifth of the items is held out and asked as queries, where the task has an input to ask by
(LaMP_7's bare tweets have none: such a device trains its private edit and is not tested; items that bring their plain
sentence as "input" do).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fed.lamp.json_stream import read_records
from fed.lamp.parsing import Place, parse_user
from fed.lamp.records import Corpus
from fed.lamp.tasks import Task
from fed.lamp.user import Query, User

HELD_OUT = 5  # one item in so many, the latest


def open_history(path: Path, task: Task, user_id: str) -> Corpus:
    """A corpus of one user. Raises RecordError for the first bad record and where there is no such file."""
    user = read_history(path, task, user_id)
    sizes = (len(user.profile), len(user.queries))
    alone = (user_id,)
    return Corpus(task, str(path), {"others": alone, "test": alone}, lambda _: sizes, lambda _: user)


def read_history(path: Path, task: Task, user_id: str) -> User:
    """The user whose history the file is. Raises as `open_history`."""
    path = Path(path).expanduser()
    if path.suffix not in (".jsonl", ".json") or not path.is_file():
        raise Place(path).error("the history must be an existing .json or .jsonl file", path.name, "correct the path")
    user = _plain(path, task, user_id) if path.suffix == ".jsonl" else _record_of(path, task, user_id)
    return user if user.queries or not task.has_inputs(user.profile) else _hold_out(user, task)


def _plain(path: Path, task: Task, user_id: str) -> User:
    items: list[Mapping[str, Any]] = []
    queries: list[Mapping[str, Any]] = []
    for number, raw in read_records(path, growing=True):
        place = Place(path, number)
        whole: Mapping[str, Any] = {"id": number, **raw}
        # One line, one record: its rules are those of a profile of one item, or of one query.
        one: dict[str, Any] = {"user_id": user_id, "profile": [], "query": []}
        if "input" in raw and "gold" in raw:
            queries.append(whole)
            one["query"] = [whole]
        else:
            items.append(whole)
            one["profile"] = [whole]
        parse_user(one, task, place, needs_queries=False, needs_profile=False)
    raw_user = {"user_id": user_id, "profile": items, "query": queries}
    return parse_user(raw_user, task, Place(path), needs_queries=False)


def _record_of(path: Path, task: Task, user_id: str) -> User:
    for number, raw in read_records(path):
        if str(raw.get("user_id", raw.get("id"))) != user_id:
            continue
        if "user_id" not in raw:
            raw = _question_as_user(raw)
        return parse_user({"query": [], **raw}, task, Place(path, number), needs_queries=False)
    raise Place(path).error("a history in .json must hold a record of this device's user-id", "none", "add it")


def _question_as_user(raw: Mapping[str, Any]) -> dict[str, Any]:
    """LaMP's question in OPPU's shape; without a gold it has nothing to ask."""
    user = {key: raw[key] for key in ("profile",) if key in raw} | {"user_id": raw["id"]}
    gold = raw.get("gold", raw.get("output"))
    return user if gold is None else user | {"query": [{"id": raw["id"], "input": raw.get("input"), "gold": gold}]}


def _hold_out(user: User, task: Task) -> User:
    count = len(user.profile) // HELD_OUT
    kept, held = user.profile[: len(user.profile) - count], user.profile[len(user.profile) - count :]
    queries = tuple(Query(i["id"], f"{task.instruction}{task.source_of(i)}", i[task.target_field]) for i in held)
    return User(user.user_id, kept, queries)
