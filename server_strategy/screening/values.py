"""Single numbers and texts off the network, and records of them. Everything else is a `Breach`."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from fed.plain_text import is_plain
from server_strategy.screening.breach import Breach, shown

MOST_CHARACTERS = 200  # of a name: a user id, a module, a device


def whole(value: object, what: str, low: int, high: int) -> int:
    """A whole number in low..high."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Breach(f"{what} must be a whole number in {low}..{high}", shown(value))
    return value


def number(value: object, what: str, low: float, high: float) -> float:
    """A finite number in [low, high], whole or not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Breach(f"{what} must be a number", shown(value))
    if not low <= value <= high or not math.isfinite(value):  # NaN lies in no range
        raise Breach(f"{what} must be a finite number in [{low:g}, {high:g}]", shown(value))
    return float(value)


def name(value: object, what: str, most: int = MOST_CHARACTERS) -> str:
    """A plain text that is not empty: no control characters, valid Unicode, of bounded length."""
    if not isinstance(value, str) or not 0 < len(value) <= most or not is_plain(value) or value != value.strip():
        raise Breach(f"{what} must be a plain text of 1 to {most} characters", shown(value))
    return value


def hexadecimal(value: object, what: str, digits: int = 16) -> str:
    """So many hex digits in lower case: a fingerprint."""
    if not isinstance(value, str) or len(value) != digits or set(value) - set("0123456789abcdef"):
        raise Breach(f"{what} must be {digits} hex digits", shown(value))
    return value


def parsed(value: object, what: str, most: int) -> Any:
    """A JSON text of at most `most` characters: no key twice, no number that is none, no depth that ends Python."""
    if not isinstance(value, str) or len(value) > most:
        raise Breach(f"{what} must be a JSON text of at most {most} characters", shown(value))

    def refuse(constant: str) -> None:
        raise Breach(f"{what} must hold finite numbers alone", shown(constant))

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = dict(pairs)
        if len(keys) != len(pairs):
            raise Breach(f"{what} must have each key once")
        return keys

    try:
        return json.loads(value, parse_constant=refuse, object_pairs_hook=once)
    except Breach:
        raise
    except (ValueError, RecursionError):
        raise Breach(f"{what} must be JSON", shown(value)) from None


def table(value: object, what: str, rows: int, columns: int) -> list[list[Any]]:
    """A JSON list of at most `rows` lists of exactly `columns` values."""
    if not isinstance(value, list) or len(value) > rows:
        raise Breach(f"{what} must be a list of at most {rows} rows", shown(value))
    for row in value:
        if not isinstance(row, list) or len(row) != columns:
            raise Breach(f"{what} must have rows of {columns} values", shown(row))
    return value


def fields(record: object, what: str, needed: Collection[str], optional: Collection[str] = ()) -> Mapping[str, Any]:
    """A mapping with exactly these keys, the optional ones or not."""
    if not isinstance(record, Mapping):
        raise Breach(f"{what} must be a record", shown(type(record).__name__))
    keys = set(record)
    if missing := sorted(set(needed) - keys):
        raise Breach(f"{what} must have {', '.join(missing)}")
    if extra := keys - set(needed) - set(optional):
        known = ", ".join(sorted({*needed, *optional}))
        raise Breach(f"{what} must have no other field than {known}", shown(min(extra, key=str)))
    return record
