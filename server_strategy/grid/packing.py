"""Several users in one message to a SuperNode, and its reply taken apart again; of more users, in several waves."""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from server_strategy.grid.edits.translation import Translation
from server_strategy.screening.breach import Breach, shown
from server_strategy.screening.values import parsed, whole

MOST_USERS = 8192  # in one message: what a message of them takes, here and on its node, is some hundred megabytes
MOST_BYTES_BESIDE = 64 << 10  # of a user's records beside its edit, and of what a node sends once

T = TypeVar("T")


def waves(users: Sequence[T], node_of: Callable[[T], Hashable]) -> list[Sequence[T]]:
    """Users in as many lists, one after the other, as have at most `MOST_USERS` of each node.

    Promise: those of a node stay in their order, and where no node has more, there is one list, the users as they came
    (tests/server_strategy/grid/test_packing.py).
    """
    if max(Counter(map(node_of, users)).values(), default=0) <= MOST_USERS:
        return [users]
    lists: list[list[T]] = []
    counts: Counter[Hashable] = Counter()
    for user in users:
        node = node_of(user)
        wave = counts[node] // MOST_USERS
        counts[node] += 1
        if wave == len(lists):
            lists.append([])
        lists[wave].append(user)
    return list(lists)


def by_user(content: RecordDict, users: int, translation: Translation) -> dict[int, dict[str, Any]]:
    """A reply's records by the users' places in the list: under `<place>/<name>`, or bundled (`clients.messages`).

    In a bundle the rows of `users/arrays/<n>` are of the users at `users/places`, and `users/<name>` has all users'
    records of a name, each field as `<place>/<field>`.

    Args:
        content: the reply's.
        users: how many the request was for.
        translation: says what travels of an edit now.
    Raises:
        Breach: it is not packed so, or is larger than so many users' replies can be.
    """
    within_bytes(content, users, translation)
    records: dict[int, dict[str, Any]] = defaultdict(dict)
    bundled_places = _places(content, users)
    for key, record in content.items():
        number, _, name = key.partition("/")
        if number != "users":
            _once(records[_place(number, users)], name, record)
        elif name.startswith("arrays/"):
            places = bundled_places.get(name.removeprefix("arrays/"), [])
            for place, row in zip(places, translation.rows(record, len(places)), strict=True):
                _once(records[place], "arrays", ArrayRecord({"edit": Array(row)}))
        elif name != "places":
            if not isinstance(record, MetricRecord | ConfigRecord) or not name:
                raise Breach("a bundle's records must be named, of metrics or configs", shown(key))
            fields_of_users: Mapping[str, Any] = record
            for field, value in fields_of_users.items():
                place_of, _, user_field = field.partition("/")
                of_user: Any = records[_place(place_of, users)].setdefault(name, type(record)())
                if type(of_user) is not type(record) or user_field in of_user:
                    raise Breach("a user's records must come once", shown(key))
                of_user[sys.intern(user_field)] = value  # one text for all users
    return records


def _once(of_user: dict[str, Any], name: str, record: object) -> None:
    if name in of_user:
        raise Breach("a user's records must come once", shown(name))
    of_user[name] = record


def within_bytes(content: RecordDict, users: int, translation: Translation) -> None:
    """Raises Breach for content that is larger than so many users' replies can be; nothing of it is read."""
    most = users * (translation.most_bytes + MOST_BYTES_BESIDE) + MOST_BYTES_BESIDE
    size = sum(_size(key) + _size(record) for key, record in content.items())
    if size > most:
        raise Breach(f"a reply for {users} users must have at most {most} bytes", str(size))


def _size(value: object) -> int:
    """Bytes of a record or a value in it, counted once over; of a number eight."""
    if isinstance(value, str):
        return len(value)  # characters: at least so many bytes
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, Array):
        return len(value.data) + len(value.dtype) + len(value.stype) + 8 * len(value.shape)
    if isinstance(value, list):
        return sum(map(_size, value))
    if isinstance(value, Mapping):
        return sum(_size(key) + _size(entry) for key, entry in value.items())
    return 8


def _places(content: RecordDict, users: int) -> dict[str, list[int]]:
    """Of a bundle's arrays: whose rows they are, each user's once."""
    record: object = content.get("users/places", {})
    if not isinstance(record, Mapping) or isinstance(record, ArrayRecord):
        raise Breach("users/places must be a ConfigRecord", shown(type(record).__name__))
    places: dict[str, list[int]] = {}
    for number, text in record.items():
        row_places = parsed(text, "users/places", 16 * users + 16)
        if not isinstance(row_places, list):
            raise Breach("users/places must be lists of places", shown(row_places))
        places[number] = [whole(place, "a user's place", 0, users - 1) for place in row_places]
    of_all = [place for row_places in places.values() for place in row_places]
    if len(set(of_all)) != len(of_all):
        raise Breach("users/places must name each place once")
    return places


def _place(text: str, users: int) -> int:
    """A user's place in the list, as the key of a record begins."""
    if not (text.isascii() and text.isdigit() and len(text) < 9 and str(int(text)) == text and int(text) < users):
        raise Breach(f"a record's key must begin with a user's place below {users}", shown(text))
    return int(text)


def packed(contents: Sequence[RecordDict], users: Sequence[str]) -> RecordDict:
    """One request for several users: a record that all share once, any other under `<place in the list>/<name>`."""
    first = contents[0]
    shared = {key: record for key, record in first.items() if all(content.get(key) is record for content in contents)}
    of_one_user = {
        f"{place}/{key}": record
        for place, content in enumerate(contents)
        for key, record in content.items()
        if key not in shared
    }
    return RecordDict({**shared, **of_one_user, "host": ConfigRecord({"users": json.dumps(list(users))})})


def let_go(replies: list[Message]) -> Iterator[Message]:
    """The replies, each held by nobody else once it is taken: one of many users is some hundred megabytes."""
    while replies:
        yield replies.pop(0)
