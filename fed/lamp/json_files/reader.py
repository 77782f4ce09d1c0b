"""A file in, its records out: an array in `.json`, an object a line in `.jsonl`. Only strict UTF-8.

Absent on purpose: meaning. What a record must contain is the business of `fed.lamp.parsing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fed.lamp.json_files.array import read_array
from fed.lamp.json_files.lines import read_lines
from fed.lamp.json_files.text import FIX, decode
from fed.lamp.parsing import Place, RecordError

CHUNK_BYTES = 1 << 20


def read_records(
    path: Path,
    *,
    chunk_bytes: int = CHUNK_BYTES,
    growing: bool = False,
    damaged: Callable[[RecordError], None] | None = None,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The file's objects, numbered from 1 in an array, by line in a `.jsonl` file (blank lines are skipped).

    Args:
        path: the file.
        chunk_bytes: what is read of an array at a time, at least.
        growing: a last line of a `.jsonl` file that neither ends nor parses is still being written, and left out.
        damaged: is told of each other line of a `.jsonl` file that is no object, which is then left out as well.

    Raises:
        RecordError: bytes that are not UTF-8, broken JSON, anything but objects, and a file without any record.
    """
    found = False
    read = read_lines(path, growing, damaged) if path.suffix == ".jsonl" else read_array(path, chunk_bytes)
    for number, record in read:
        if not isinstance(record, dict):
            error = Place(path, number).error("a record must be a JSON object", record, "write it as {...}")
            if damaged is None or path.suffix != ".jsonl":
                raise error
            damaged(error)
            continue
        found = True
        yield number, record
    if not found:
        raise Place(path).error("the file must hold at least one record", "none", FIX)


def read_whole(path: Path) -> Any:
    """All of one small JSON file. Raises RecordError for bytes that are not UTF-8 and for broken JSON."""
    return decode(path.read_bytes(), Place(path))
