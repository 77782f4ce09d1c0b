"""Result files for programs: JSON and CSV, whole or not there at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from fed.atomic_write import write_text

Rows = Sequence[dict[str, Any]]


def write_json(path: Path, content: object) -> Path:
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: Rows) -> Path:
    """The first row's keys head the columns."""
    out = StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, out.getvalue())
