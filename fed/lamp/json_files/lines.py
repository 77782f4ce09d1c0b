"""An object a line, in a `.jsonl` file that may grow, and that a crash may have damaged in some of its lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fed.lamp.json_files.text import decode
from fed.lamp.parsing import Place, RecordError


def read_lines(
    path: Path,
    growing: bool = False,
    damaged: Callable[[RecordError], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """The JSON value of each line that is not blank, with the line's number from 1.

    Args:
        path: the file.
        growing: a last line that neither ends nor parses is still being written, and left out without a word.
        damaged: is told of each other line that does not parse (a run of NULs, half a record, another encoding's
            byte), which is then left out.

    Raises:
        RecordError: a line that does not parse, where `damaged` is not given.
    """
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    value = decode(line, Place(path, number), start)
                except RecordError as error:
                    if growing and not line.endswith(b"\n"):
                        return
                    if damaged is None:
                        raise
                    damaged(error)
                else:
                    yield number, value
            start += len(line)
