"""Result files for programs: JSON and CSV, whole or not there at all."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from fed.atomic_write import write_text
from fed.plain_cells import plain_row
from fed.strict_json import dumps

Rows = Sequence[dict[str, Any]]


def write_json(path: Path, content: object) -> Path:
    return write_text(path, dumps(content, indent=2) + "\n")


def write_csv(path: Path, rows: Rows) -> Path:
    """The first row's keys head the columns."""
    out = StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(map(plain_row, rows))
    return write_text(path, out.getvalue())
