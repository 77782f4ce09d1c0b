"""Cells of CSV files that no spreadsheet takes for a formula.

A text that begins with =, +, -, @, a tab or a line end is a formula to a spreadsheet, whoever wrote it: a user id
`=HYPERLINK(…)` would be run on the machine of who opens the table. Such a text gets an apostrophe before it (OWASP,
"CSV Injection"); numbers stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def plain_cell(value: object) -> object:
    """The value as it may stand in a CSV file."""
    if not isinstance(value, str) or not value.startswith(_FORMULA) or _number(value):
        return value
    return f"'{value}"


def plain_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of them, under the same names."""
    return {name: plain_cell(value) for name, value in row.items()}


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.strip() == text
