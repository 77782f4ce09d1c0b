"""Named numbers of one of many: the names are kept once for all, and each keeps a row of numbers alone.

A run has eight such of every user.

Promise: a row takes less than half of the memory of a dict of its numbers (tests/fed/test_number_row.py).
"""

from __future__ import annotations

from array import array
from collections.abc import ItemsView, Iterator, Mapping

_PLACES: dict[tuple[str, ...], dict[str, int]] = {}  # names, in their order -> each one's place


class NumberRow(Mapping[str, float]):
    """A mapping of names to numbers, float64, that does not change; equal to a dict of the same.

    Args:
        numbers: in the order that they are to be read in.
    """

    __slots__ = ("_places", "_values")

    def __init__(self, numbers: Mapping[str, float]) -> None:
        names = tuple(numbers)
        self._places = _PLACES.setdefault(names, {name: place for place, name in enumerate(names)})
        self._values = array("d", tuple(numbers.values()))  # of a tuple, with no room to grow

    def __getitem__(self, name: str) -> float:
        return self._values[self._places[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._values)

    def items(self) -> ItemsView[str, float]:
        """Of a dict that is made for it, which is quicker than name by name."""
        return dict(zip(self._places, self._values, strict=True)).items()

    def __repr__(self) -> str:
        return repr(dict(self.items()))
