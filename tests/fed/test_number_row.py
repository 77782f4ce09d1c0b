"""Named numbers of one of many: equal to a dict of them, in its order, the names shared."""

import json

import pytest

from fed import strict_json
from fed.number_row import NumberRow


def test_it_reads_as_the_dict_that_it_was_made_of():
    numbers = {"b": 0.1, "a": 3.0}
    row = NumberRow(numbers)
    assert row == numbers and numbers == row and dict(row) == numbers and list(row.items()) == list(numbers.items())
    assert (list(row), list(row.values()), len(row), row["a"], row.get("c")) == (["b", "a"], [0.1, 3.0], 2, 3.0, None)
    assert repr(row) == repr(numbers) and json.loads(strict_json.dumps(row)) == numbers
    with pytest.raises(KeyError):
        row["c"]


def test_rows_of_the_same_names_share_them():
    first, second = NumberRow({"a": 1.0, "b": 2.0}), NumberRow({"a": 3.0, "b": 4.0})
    assert first._places is second._places and NumberRow({"b": 1.0, "a": 2.0}) == {"b": 1.0, "a": 2.0}
