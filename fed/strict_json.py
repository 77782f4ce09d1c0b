"""JSON as RFC 8259 has it, without NaN and infinities: a number that is none is null, and its reason stands beside it.

    {"loss": NaN, "epochs": [1.0, inf]}  ->  {"loss": null, "epochs": [1.0, null],
                                              "not_finite": {"loss": "nan", "epochs[1]": "inf"}}

`loads` gives back what was there, so a program of ours reads the same numbers as before.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

REASONS = "not_finite"
_IN_A_LIST = re.compile(r"(.*?)((?:\[\d+\])+)")


def dumps(content: object, *, indent: int | None = None) -> str:
    """Strict JSON in Unicode.

    Promise: any JSON reader takes it, and `loads` of it is the content (tests/fed/test_strict_json.py).
    """
    return json.dumps(_strict(content), indent=indent, ensure_ascii=False, allow_nan=False)


def pieces(content: Mapping[str, object], *, indent: int) -> Iterator[str]:
    """The text of `dumps` piece by piece, an entry of a list at a time: a long list's text is never held as a whole.

    Promise: joined they are the text of `dumps` (tests/fed/test_strict_json.py).
    """
    margin, deeper = "\n" + indent * " ", "\n" + 2 * indent * " "
    reasons = {place: text for key, part in content.items() for place, text in _reasons(part, str(key))}
    before = "{"
    for key, value in (*content.items(), *([(REASONS, reasons)] if reasons else [])):
        yield f"{before}{margin}{json.dumps(str(key), ensure_ascii=False)}: "
        before = ","
        if not isinstance(value, (list, tuple)) or not value:
            yield dumps(value, indent=indent).replace("\n", margin)  # texts have their line breaks escaped
            continue
        for number, part in enumerate(value):
            yield ("," if number else "[") + deeper + dumps(part, indent=indent).replace("\n", deeper)
        yield margin + "]"
    yield "{}" if before == "{" else "\n}"


def loads(text: str) -> Any:
    """What `dumps` was given, NaN and infinities among it. Raises ValueError for what is no JSON."""
    return _restored(json.loads(text))


def _strict(value: object) -> Any:
    if isinstance(value, Mapping):
        # Numbers of lists within belong to the nearest object, which has the room to say why they are null.
        reasons = {place: text for key, part in value.items() for place, text in _reasons(part, str(key))}
        return {str(key): _strict(part) for key, part in value.items()} | ({REASONS: reasons} if reasons else {})
    if isinstance(value, (list, tuple)):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _reasons(value: object, place: str) -> Iterator[tuple[str, str]]:
    """(place, what the number is) of a value and of the lists in it, without the objects in them."""
    if isinstance(value, float) and not math.isfinite(value):
        yield place, str(value)
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from _reasons(part, f"{place}[{number}]")


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(part) for part in value]
    if not isinstance(value, dict):
        return value
    whole = {key: _restored(part) for key, part in value.items() if key != REASONS}
    for place, text in value.get(REASONS, {}).items():
        steps: list[str | int] = [place]
        if place not in whole and (parts := _IN_A_LIST.fullmatch(place)):
            steps = [parts[1], *map(int, re.findall(r"\d+", parts[2]))]
        holder: Any = whole
        for step in steps[:-1]:
            holder = holder[step]
        holder[steps[-1]] = float(text)
    return whole
