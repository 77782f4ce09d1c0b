"""Texts off the network as one plain line."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fed.plain_text import LONGEST, is_plain, plain

BAD = {
    "a line feed": "a\nerror: b",
    "a carriage return": "a\rwarning: b",
    "a colour": "\x1b[31mred\x1b[0m",
    "a hidden text": "\x1b[8mhidden",
    "a C1 escape": "\x9b31m",
    "a bell": "\a",
    "a backspace": "ab\b\b",
    "a zero byte": "a\0b",
    "a text that runs backwards": "\u202eabc",
    "a text of no width": "a\u200bb",
    "a lone surrogate": "\ud800",
    "a line separator": "a\u2028b",
    "a paragraph separator": "a\u2029b",
    "a private character": "\ue000",
    "an unassigned one": "\U000e0fff",
    "a tag": "\U000e0041",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_what_is_not_plain_is_told_and_made_plain(text):
    assert not is_plain(text)
    assert is_plain(plain(text)) and plain(text).splitlines() == [plain(text)]
    plain(text).encode("utf-8")


@pytest.mark.parametrize("text", ["user 'ann'", "Zoë Łukasz", "東京", "🎉 ok", "e\u0301", "50 % · loss 4.2 → 1.1"])
def test_a_plain_line_stays_as_it_is(text):
    assert is_plain(text) and plain(text) == text


@given(st.text(st.characters(), max_size=2 * LONGEST))
@example("x" * 3000)
@example("\x1b" * 3000)
def test_any_text_becomes_one_plain_line_of_bounded_length(text):
    line = plain(text)
    assert is_plain(line) and len(line) <= LONGEST and len(line.splitlines()) <= 1
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in line)
    assert plain(line) == line


def test_a_text_is_cut_with_a_mark():
    assert plain("abcdef", 4) == "abc…"
