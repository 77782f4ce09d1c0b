"""A user as data, and the rules that a record must obey to become one.

The two layouts of `fed.lamp.layouts` both end here: a raw JSON object goes in, a `User` comes out, or a
`RecordError` that names the file, the record and the rule. Ids may be strings or integers and become strings;
texts must be strings that are not blank; labels must be the task's own. Nothing is repaired or dropped. A history is
put in the order of its items' dates, the oldest first, where every item has one; else it stays as the file has it.
Absent on purpose: fields that no method reads (a news item's title in LaMP_2N) are left behind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fed.lamp.tasks import INPUT_FIELD, Task
from fed.lamp.user import Query, User


class RecordError(ValueError):
    """Bad data: `<file>: record <n> (user_id 'x'): <rule>; got <value>; <fix>`, always one line.

    Attributes:
        public: the same without the file's name and the value, so that no word of the data leaves a device.
    """

    def __init__(self, message: str, public: str = "") -> None:
        super().__init__(message)
        self.public = public


@dataclass(frozen=True)
class Place:
    """Where something was read: the file, the record in it (from 1; the line of a .jsonl file), its user."""

    file: Path
    record: int | None = None
    user_id: str | None = None

    def error(self, rule: str, got: object, fix: str) -> RecordError:
        """The error to raise for a broken rule; `got` is shown as its repr, shortened."""
        record = "" if self.record is None else f" record {self.record}"
        user = "" if self.user_id is None else f" (user_id {self.user_id!r})"
        where = f"{self.file}:{record}{user}{':' if record or user else ''}"
        shown = repr(got)
        said = f"{where} {rule}; got {shown if len(shown) <= 80 else shown[:77] + '...'}; {fix}"
        return RecordError(said, f"the data's{record or ' file'}: {rule}; {fix}")


def parse_user(raw: object, task: Task, place: Place, *, needs_queries: bool, needs_profile: bool = True) -> User:
    """A validated user from OPPU's shape `{"user_id", "profile": [...], "query": [...]}`.

    Raises RecordError at the first broken rule. `needs_queries`, `needs_profile`: a user without any breaks one.
    """
    user_id = read_id(raw, "user_id", "a user", place)
    place = replace(place, user_id=user_id)
    items = _list(raw, "profile", "a user", place)
    if not items and needs_profile:
        raise place.error("a user's profile must hold at least one item", items, "add items or remove the user")
    profile = tuple(parse_item(item, task, place, f"profile item {n}") for n, item in enumerate(items, 1))
    _check_unique((item["id"] for item in profile), "profile item", place)
    asked = _list(raw, "query", "a user", place)
    if needs_queries and not asked:
        raise place.error("a test user must have at least one query", asked, "add queries or remove the user")
    queries = tuple(_parse_query(query, task, place, f"query {n}") for n, query in enumerate(asked, 1))
    _check_unique((query.id for query in queries), "query", place)
    return User(user_id, _oldest_first(profile, items), queries)


def question_as_user(raw: Mapping[str, Any], question_id: object, gold: object) -> dict[str, Any]:
    """LaMP's question `{"id", "input", "profile"}` and its gold in OPPU's shape; what is missing stays missing."""
    query = {"id": question_id, "gold": gold} | {key: raw[key] for key in ("input",) if key in raw}
    return {"user_id": question_id, "query": [query]} | {key: raw[key] for key in ("profile",) if key in raw}


def parse_item(raw: object, task: Task, place: Place, owner: str) -> dict[str, str]:
    """A validated profile item: id and history fields. Raises RecordError, where `owner` names the item."""
    item = {"id": read_id(raw, "id", owner, place)}
    if task.source_field is not None:
        item[task.source_field] = _text(raw, task.source_field, owner, place)
    elif isinstance(raw, dict) and INPUT_FIELD in raw:
        item[INPUT_FIELD] = _text(raw, INPUT_FIELD, owner, place).removeprefix(task.instruction)
    item[task.target_field] = _answer(raw, task.target_field, task, owner, place)
    return item


def _oldest_first(profile: tuple[dict[str, str], ...], raw: list[Any]) -> tuple[dict[str, str], ...]:
    """The items by their `date`, those of one date as the file has them; all as the file has them where one has none.

    What tells the latest items of a history, on which a run with `max-items` trains and which `held-out` asks.
    """
    dates = [_moment(one["date"]) if "date" in one else None for one in raw]
    known = [date for date in dates if date is not None]
    if len(known) < len(dates):
        return profile
    return tuple(profile[place] for place in sorted(range(len(profile)), key=known.__getitem__))


def _moment(date: object) -> datetime | None:
    """A date by ISO 8601, of which the time, the day and the month may be left out; a year may be a number."""
    text = str(date).strip() if isinstance(date, (str, int)) and not isinstance(date, bool) else ""
    if text.replace("-", "").isdigit() and len(text) in (4, 7):  # the year, or the year and the month
        text += "-01-01" if len(text) == 4 else "-01"
    try:
        moment = datetime.fromisoformat(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        return None


def _parse_query(raw: object, task: Task, place: Place, owner: str) -> Query:
    identifier = read_id(raw, "id", owner, place)
    return Query(identifier, _text(raw, "input", owner, place), _answer(raw, "gold", task, owner, place))


def read_field(raw: object, name: str, owner: str, place: Place) -> Any:
    """The value of field `name`. Raises RecordError where that is missing or `raw` is no JSON object."""
    if not isinstance(raw, dict):
        raise place.error(f"{owner} must be a JSON object", raw, "write it as {...}")
    if name not in raw:
        raise place.error(f"{owner} needs the field {name!r}", sorted(raw), "add the field")
    return raw[name]


def read_id(raw: object, name: str, owner: str, place: Place) -> str:
    """The id in field `name`, a string or an integer, as a string. Raises RecordError."""
    value = read_field(raw, name, owner, place)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise place.error(f"{owner}'s {name!r} must be a string or an integer", value, "correct its type")
    return _check_unicode(str(value), name, owner, place)


def _list(raw: object, name: str, owner: str, place: Place) -> list[Any]:
    value = read_field(raw, name, owner, place)
    if not isinstance(value, list):
        raise place.error(f"{owner}'s {name!r} must be a list", value, "write it as [...]")
    return value


def _text(raw: object, name: str, owner: str, place: Place) -> str:
    value = read_field(raw, name, owner, place)
    if not isinstance(value, str):
        raise place.error(f"{owner}'s {name!r} must be a string", value, "correct its type")
    return _check_unicode(value, name, owner, place)


def _answer(raw: object, name: str, task: Task, owner: str, place: Place) -> str:
    """What the user wrote: a label of the task, stripped (a rating may be an integer), else a text."""
    if not task.labels:
        return _text(raw, name, owner, place)
    value = read_field(raw, name, owner, place)
    if task.kind == "rating" and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise place.error(f"{owner}'s {name!r} must be a string", value, "correct its type")
    if value.strip() not in task.labels:
        rule = f"{owner}'s {name!r} must be a label of {task.name}"
        raise place.error(rule, value, f"use one of: {', '.join(task.labels)}")
    return value.strip()


def _check_unicode(value: str, name: str, owner: str, place: Place) -> str:
    if not value.strip():
        raise place.error(f"{owner}'s {name!r} must not be empty", value, "fill it or remove the record")
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            rule = f"{owner}'s {name!r} must be valid Unicode"
            raise place.error(rule, value[error.start], "pair or remove the lone surrogate") from None
    return value


def _check_unique(ids: Iterable[str], owner: str, place: Place) -> None:
    seen: set[str] = set()
    for one in ids:
        if one in seen:
            raise place.error(f"every {owner} of a user must have an id of its own", one, "rename or remove one")
        seen.add(one)
