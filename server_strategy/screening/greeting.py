"""A node's greeting: whom it hosts, how much data each has, and what base model it runs; believed only within bounds.

A device hosts one user. How many nodes a simulation has, and how many users are on one, a node says itself, up to
bounds. The shapes of the base model are what memory is later allocated by, so they are held against the server's own
copy (`grid.nodes`), or, without one, against those of most nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, MetricRecord

from fed.base.device import DTYPES
from fed.settings.settings import Settings
from server_strategy.screening.breach import Breach, shown
from server_strategy.screening.values import MOST_CHARACTERS, fields, hexadecimal, name, number, parsed, table, whole

MOST_NODES = 100_000
MOST_USERS = 100_000  # on a simulated node
MOST_ROWS = 1_000_000  # of a user, and queries
MOST_TEXT = 16 << 20  # characters of the list of users
MOST_LINEARS = 20_000
MOST_LEFT_OUT = 20  # features that a base's cache cannot serve
MOST_WIDTH = 1 << 24  # inputs or outputs of a Linear: vocabularies have fewer
NODE_FIELDS = ("part", "parts", "users", "base", "linears")
BASE_FIELDS = ("name", "parameters", "hidden_size", "layers", "dtype", "device", "fingerprint")


@dataclass(frozen=True)
class Greeting:
    """What a node said, checked.

    Attributes:
        part, parts: which of how many simulated nodes it is; 0 and 0 of a device.
        stage1: user -> rows to federate on.
        stage2: user -> (rows, queries).
        base: its base model, as `BaseModel.describe`, and the fingerprint.
        linears: (module name, outputs, inputs) of the base model's Linears.
    """

    part: int
    parts: int
    stage1: dict[str, int]
    stage2: dict[str, tuple[int, int]]
    base: dict[str, Any]
    linears: tuple[tuple[str, int, int], ...]

    @property
    def users(self) -> set[str]:
        return {*self.stage1, *self.stage2}

    @property
    def shapes(self) -> tuple[object, ...]:
        """What all nodes of a run must agree on, the fingerprint first."""
        base = self.base
        return base["fingerprint"], base["parameters"], base["hidden_size"], base["layers"], self.linears


def greeting(reply: Message, settings: Settings) -> Greeting:
    """A reply to `query.hello`. Raises Breach."""
    if not reply.has_content():
        raise Breach("a greeting must have content")
    content = fields(reply.content, "a greeting", ["node"], ["timing"])
    node = content["node"]
    if not isinstance(node, ConfigRecord):
        raise Breach("a greeting's node must be a ConfigRecord", shown(type(node).__name__))
    fields(node, "a greeting's node", NODE_FIELDS)
    parts = whole(node["parts"], "parts", 0, MOST_NODES)
    part = whole(node["part"], "part", 0, max(0, parts - 1))
    if "timing" in content:
        if not parts:
            raise Breach("a device must not say when it was at work")
        timing(content["timing"])
    stage1, stage2 = _users(node["users"], settings, most=MOST_USERS if parts else 1)
    if not parts and len({*stage1, *stage2}) > 1:
        raise Breach("a device must host one user", ", ".join(map(shown, sorted({*stage1, *stage2}))))
    return Greeting(part, parts, stage1, stage2, _base(node["base"]), _linears(node["linears"]))


def timing(record: object) -> tuple[float, float]:
    """When a simulated node was at work: (began, ended), as `time.time`. Raises Breach."""
    if not isinstance(record, MetricRecord):
        raise Breach("timing must be a MetricRecord", shown(type(record).__name__))
    fields(record, "timing", ["began", "ended"])
    began = number(record["began"], "timing's began", 0, 1e12)
    return began, number(record["ended"], "timing's ended", began, 1e12)


def _users(text: object, settings: Settings, most: int) -> tuple[dict[str, int], dict[str, tuple[int, int]]]:
    users = fields(parsed(text, "users", MOST_TEXT if most > 1 else 8 * MOST_CHARACTERS), "users", ["stage1", "stage2"])
    rows = settings.max_items or MOST_ROWS
    queries = settings.max_queries or MOST_ROWS
    stage1 = {
        name(user, "a user id"): whole(items, f"stage 1's rows of {shown(user)}", 0, rows)
        for user, items in table(users["stage1"], "users' stage1", most, 2)
    }
    stage2 = {
        name(user, "a user id"): (
            whole(items, f"stage 2's rows of {shown(user)}", 0, rows),
            whole(asked, f"queries of {shown(user)}", 0, queries),
        )
        for user, items, asked in table(users["stage2"], "users' stage2", most, 3)
    }
    if len(stage1) != len(users["stage1"]) or len(stage2) != len(users["stage2"]):
        raise Breach("users must each be listed once")
    if most == 1 and not stage1 and not stage2:  # of a simulation there may be more nodes than users
        raise Breach("a device must host a user")
    return stage1, stage2


def _base(text: object) -> dict[str, Any]:
    base = fields(parsed(text, "base", 20 * MOST_CHARACTERS), "base", BASE_FIELDS, ["left_out"])
    layers = whole(base["layers"], "the base model's layers", 1, 4096)
    hidden = whole(base["hidden_size"], "the base model's hidden_size", 1, 1 << 17)
    whole(base["parameters"], "the base model's parameters", layers * hidden, 10**13)
    if base["dtype"] not in DTYPES:
        raise Breach(f"the base model's dtype must be one of {', '.join(DTYPES)}", shown(base["dtype"]))
    name(base["device"], "the base model's device")
    name(base["name"], "the base model's name")
    hexadecimal(base["fingerprint"], "the base model's fingerprint")
    if "left_out" in base:
        lines = table([[line] for line in _list(base["left_out"])], "left_out", MOST_LEFT_OUT, 1)
        base = {**base, "left_out": [name(line, "what the base model goes without") for (line,) in lines]}
    return dict(base)


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise Breach("what the base model goes without must be a list", shown(value))
    return value


def _linears(text: object) -> tuple[tuple[str, int, int], ...]:
    rows = table(parsed(text, "linears", MOST_LINEARS * MOST_CHARACTERS), "linears", MOST_LINEARS, 3)
    linears = tuple(
        (
            name(module, "a Linear's name"),
            whole(outputs, f"outputs of {shown(module)}", 1, MOST_WIDTH),
            whole(inputs, f"inputs of {shown(module)}", 1, MOST_WIDTH),
        )
        for module, outputs, inputs in rows
    )
    if len({module for module, _, _ in linears}) != len(linears):
        raise Breach("linears must each be listed once")
    return linears
