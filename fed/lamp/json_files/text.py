"""JSON decoded from strict UTF-8, and the one-line errors of what cannot be."""

from __future__ import annotations

import json
from typing import Any

from fed.lamp.parsing import Place, RecordError

FIX = "correct the file or export it again"


def decode(data: bytes, place: Place, start: int = 0) -> Any:
    """One JSON value; a byte order mark before it is skipped.

    Args:
        data: its bytes.
        place: where they were read, for the error.
        start: the offset of the first of them in the file.

    Raises:
        RecordError: bytes that are not UTF-8, broken JSON.
    """
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise not_utf8(error, place, start) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise broken(error, place, "", text) from None


def not_utf8(error: UnicodeDecodeError, place: Place, start: int) -> RecordError:
    """The error for bytes that are not UTF-8; `start`: the offset of the decoded bytes in the file."""
    rule = f"the file must be UTF-8, and the byte at offset {start + error.start} is not"
    return place.error(rule, error.object[error.start : error.end], "save it as UTF-8")


def broken(error: Exception, place: Place, where: str, text: str) -> RecordError:
    """The error for text that is not JSON; `where`: said before the rule, found from the error where empty."""
    if not isinstance(error, json.JSONDecodeError):
        return place.error(f"{where}not valid JSON ({type(error).__name__})", str(error), FIX)
    if not where:  # the text is a whole file, or one line of a .jsonl file, whose number the place gives
        where = f"column {error.colno}: " if place.record else f"line {error.lineno} column {error.colno}: "
    got = text[error.pos : error.pos + 20] or "the end of the file"
    return place.error(f"{where}not valid JSON ({error.msg})", got, FIX)
