"""Several users in one message to a SuperNode, and its reply taken apart again."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict


def by_user(content: RecordDict) -> dict[int, dict[str, Any]]:
    """A reply's records by the users' places in the list: under `<place>/<name>`, or bundled (`clients.messages`).

    In a bundle the rows of `users/arrays/<n>` are of the users at `users/places`, and `users/<name>` has all users'
    records of a name, each field as `<place>/<field>`.
    """
    records: dict[int, dict[str, Any]] = defaultdict(dict)
    for key, record in content.items():
        number, _, name = key.partition("/")
        if number != "users":
            records[int(number)][name] = record
        elif name.startswith("arrays/"):
            places = json.loads(str(content.config_records["users/places"][name.removeprefix("arrays/")]))
            for place, row in zip(places, content.array_records[key]["edit"].numpy(), strict=True):
                records[place]["arrays"] = ArrayRecord({"edit": Array(row)})
        elif name != "places":
            for field, value in record.items():
                place_of, _, user_field = field.partition("/")
                records[int(place_of)].setdefault(name, type(record)())[user_field] = value
    return records


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
