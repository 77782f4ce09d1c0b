"""An array of any size in a `.json` file, decoded object by object from a window as large as the largest needs.

A record that the window does not yet hold whole is decoded again after the window has doubled, so the work stays linear
in the file. A syntax error is told from an unfinished record by its position: JSON is decoded from left to right, so an
error well before the window's end stays one whatever follows.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fed.lamp.json_files.text import FIX, broken, not_utf8
from fed.lamp.parsing import Place, RecordError

_MARGIN = 16  # characters: longer than any token that may be cut in two ("-Infinity", \ud83d\ude00)
_BLANK = re.compile(r"[ \t\n\r]*")


def read_array(path: Path, chunk_bytes: int) -> Iterator[tuple[int, Any]]:
    """The objects of a `.json` file's one array, numbered from 1.

    Args:
        path: the file.
        chunk_bytes: what is read at a time, at least.

    Raises:
        RecordError: bytes that are not UTF-8, broken JSON, anything but one array of objects.
    """
    with path.open("rb") as file:
        window = _Window(file, path, chunk_bytes)
        if window.peek() == "\ufeff":
            window.expect("\ufeff", "")
        window.expect("[", "a .json file must be one array of records (a .jsonl file has one a line)")
        if window.peek() == "]":
            window.expect("]", "")
        else:
            while True:
                window.number += 1
                yield window.number, window.decode()
                if window.peek() != ",":
                    break
                window.expect(",", "")
            window.expect("]", "after a record must come ',' and the next one, or the array's closing ']'")
        if window.peek():
            raise window.error("nothing may follow the array's closing ']'")


class _Window:
    """The part of a file that is in memory as text, and how far in it records have been taken."""

    def __init__(self, file: Any, path: Path, chunk_bytes: int) -> None:
        self.number = 0
        self._file, self._path, self._chunk_bytes = file, path, chunk_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._text, self._at, self._ended = "", 0, False
        self._bytes = self._lines = 0  # read so far; line breaks before the window
        self._bad: tuple[UnicodeDecodeError, int] | None = None  # raised when the text before it has been used up

    def _grow(self) -> None:
        """Drop what was taken; read as much again as is left, at least a chunk."""
        if self._bad:
            raise not_utf8(self._bad[0], Place(self._path, self.number or None), self._bad[1])
        self._lines += self._text.count("\n", 0, self._at)
        self._text, self._at = self._text[self._at :], 0
        data = self._file.read(max(self._chunk_bytes, len(self._text)))
        self._bytes += len(data)
        self._ended = not data
        try:
            self._text += self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode("utf-8")
            self._bad = (error, self._bytes - len(error.object))
            self._ended = False

    def peek(self) -> str:
        """The next character that is not blank; "" at the end of the file."""
        while True:
            match = _BLANK.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._grow()

    def expect(self, character: str, rule: str) -> None:
        if self.peek() != character:
            raise self.error(rule)
        self._at += 1

    def decode(self) -> Any:
        """The next value, which must be an object."""
        if self.peek() != "{":
            raise self.error("a record must be a JSON object")
        decoder = json.JSONDecoder()
        while True:
            try:
                value, self._at = decoder.raw_decode(self._text, self._at)
                return value
            except json.JSONDecodeError as error:
                unfinished = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - _MARGIN
                if self._ended or not unfinished:
                    raise self._broken(error) from None
                self._grow()
            except (ValueError, RecursionError) as error:  # thousands of digits or brackets
                raise self._broken(error) from None

    def _broken(self, error: Exception) -> RecordError:
        position = getattr(error, "pos", self._at)
        line = self._lines + self._text.count("\n", 0, position) + 1
        return broken(error, Place(self._path, self.number or None), f"line {line}: ", self._text)

    def error(self, rule: str) -> RecordError:
        line = self._lines + self._text.count("\n", 0, self._at) + 1
        got = self._text[self._at : self._at + 20] or "the end of the file"
        return Place(self._path, self.number or None).error(f"line {line}: {rule}", got, FIX)
