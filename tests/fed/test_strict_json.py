"""JSON that any reader takes, and that gives back to ours what was there."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.strict_json import dumps, loads, pieces

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab[0]", max_size=4), inner, max_size=3),
    max_leaves=12,
)


def refuse(constant):
    raise AssertionError(f"not JSON: {constant}")


@given(st.dictionaries(st.text("ab", max_size=3), VALUES))
def test_a_strict_reader_takes_it_and_loads_gives_back_every_number(content):
    text = dumps(content)
    json.loads(text, parse_constant=refuse)
    assert repr(loads(text)) == repr(content)


@given(st.dictionaries(st.text("ab\n\u2028", max_size=3), VALUES), st.integers(1, 3))
def test_piece_by_piece_it_is_the_same_text(content, indent):
    assert "".join(pieces(content, indent=indent)) == dumps(content, indent=indent)


def test_a_list_is_written_entry_by_entry():
    longest = max(pieces({"users": [{"sums": [1.0] * 5}] * 100}, indent=1), key=len)
    assert longest.count("sums") == 1


def test_a_number_that_is_none_is_null_with_its_reason_beside_it():
    content = {"arms": {"base": {"loss": math.nan, "epochs": [1.0, [math.inf]]}}, "rows": [{"x": -math.inf}]}
    assert json.loads(dumps(content)) == {
        "arms": {"base": {"loss": None, "epochs": [1, [None]], "not_finite": {"loss": "nan", "epochs[1][0]": "inf"}}},
        "rows": [{"x": None, "not_finite": {"x": "-inf"}}],
    }


def test_finite_content_is_written_as_json_itself_would():
    content = {"ä": [1, 2.5, None, True, {"b": "c"}]}
    assert dumps(content, indent=1) == json.dumps(content, ensure_ascii=False, indent=1)


def test_what_is_no_json_is_refused():
    with pytest.raises(ValueError):
        loads("{")
