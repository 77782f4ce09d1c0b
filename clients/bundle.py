"""A reply for many users in few objects.

Flower ships every record and every array of a message as an object of its own, by a request of its own: four for a
user in stage 1. Bundled, the users' arrays are the rows of a few, and each kind of record is one record of all users,
under `<place>/<key>`, still of its own type: where numbers go, there is room for numbers alone. The server
(`server_strategy.user_grid.by_user`) takes them apart and counts each user as if alone.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

AT_MOST = 4 << 20  # bytes of users' arrays in one; a single user's may be larger


def bundled(reply: RecordDict) -> RecordDict:
    """The same records in few objects; a reply for one user, as a device's, stays as it is."""
    if len({key.partition("/")[0] for key in reply}) < 2:
        return reply
    groups: list[list[tuple[int, np.ndarray[Any, Any]]]] = []
    for key, arrays in reply.array_records.items():
        row = arrays["edit"].numpy()
        if not groups or (len(groups[-1]) + 1) * row.nbytes > AT_MOST:
            groups.append([])
        groups[-1].append((int(key.partition("/")[0]), row))
    made = RecordDict()
    for number, group in enumerate(groups):
        made[f"users/arrays/{number}"] = ArrayRecord({"edit": Array(np.stack([row for _, row in group]))})
    if groups:
        places = {str(number): json.dumps([place for place, _ in group]) for number, group in enumerate(groups)}
        made["users/places"] = ConfigRecord(dict(places))
    record: Any  # a MetricRecord or a ConfigRecord
    for key, record in (*reply.metric_records.items(), *reply.config_records.items()):
        place, _, name = key.partition("/")
        if f"users/{name}" not in made:
            made[f"users/{name}"] = type(record)()
        of_all: Any = made[f"users/{name}"]
        for field, value in record.items():
            of_all[f"{place}/{field}"] = value
    return made
