"""Texts of others as one plain line: what comes over the network cannot break a line of a log, colour a terminal,
turn the direction of writing, or reach a printer that its characters break.

A character is plain where it is seen, or a space. Not plain are Unicode's controls (Cc: line feeds, escape),
formats (Cf: marks that turn or hide text), surrogates (Cs), private and unassigned ones (Co, Cn), and the separators of
lines and paragraphs (Zl, Zp).
"""

from __future__ import annotations

import unicodedata

LONGEST = 500  # characters of a line from elsewhere
_NOT_PLAIN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def is_plain(text: str) -> bool:
    """Whether every character is seen, or a space."""
    return (text.isascii() and text.isprintable()) or not any(map(_hidden, text))


def plain(text: str, longest: int = LONGEST) -> str:
    """The text as one line: white space as single spaces, any other character that is not plain by its number.

    Promise: the result is plain, of at most `longest` characters, and of such a line the line itself
    (tests/fed/test_plain_text.py).
    """
    text = text[: 4 * longest]  # what is cut off anyway is not worked through
    spaced = " ".join(text.split())
    line = spaced if is_plain(spaced) else "".join(f"\\u{{{ord(c):x}}}" if _hidden(c) else c for c in spaced)
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _hidden(character: str) -> bool:
    return unicodedata.category(character) in _NOT_PLAIN
