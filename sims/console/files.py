"""Result files for programs: JSON and CSV, written by rename."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

Rows = Sequence[dict[str, Any]]


def write_json(path: Path, content: object) -> Path:
    return write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: Rows) -> Path:
    out = StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, out.getvalue())


def write_text(path: Path, text: str) -> Path:
    """Written beside and renamed, so that nobody reads half a file."""
    building = path.with_name(f".{path.name}.{os.getpid()}")
    building.write_text(text, encoding="utf-8")
    os.replace(building, path)
    return path
