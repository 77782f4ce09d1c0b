"""Named numbers of one of many: equal to a dict of them, in its order, the names shared."""

import json
import tracemalloc

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


def test_a_row_takes_less_than_half_of_a_dict():
    names = [f"name-{number}" for number in range(9)]

    def taken(make) -> int:
        make({name: 0.5 for name in names})  # what is kept once for all
        tracemalloc.start()
        kept = [make({name: float(number) for name in names}) for number in range(1000)]
        memory, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return memory if kept else 0

    assert 2 * taken(NumberRow) < taken(lambda numbers: {name: value + 0.5 for name, value in numbers.items()})
