"""An edit off the network as numbers: of the shape and dtype that is expected, and finite.

Flower's `Array` says its dtype and shape beside the bytes, and the bytes say them again (`fed.communication.npy`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from fed.communication import npy
from server_strategy.screening.breach import Breach, shown
from server_strategy.screening.values import fields

_STYPE = "numpy.ndarray"
_BF16_EXPONENT = 0x7F80  # all ones: infinite or NaN


def numbers_of(array: Array, shape: tuple[int, ...], wire_dtype: str, *, finite: bool = True) -> NDArray[Any]:
    """The array's numbers, read-only, as they travelled; of this shape and dtype.

    Args:
        array: off the network.
        shape: what it must have.
        wire_dtype: what it must travel as.
        finite: whether every number must be; of several users' edits in one array each is asked alone.
    Raises:
        Breach: anything else.
    """
    dtype = npy.travelling(wire_dtype)
    if array.stype != _STYPE:
        raise Breach(f"the edit must be serialized as {_STYPE}", shown(array.stype))
    if array.dtype != str(dtype):
        raise Breach(f"the edit must travel as {dtype}", shown(array.dtype))
    if tuple(array.shape) != shape:
        raise Breach(f"the edit must have shape {shape}", shown(tuple(array.shape)))
    try:
        numbers = npy.numbers(array.data, shape, wire_dtype)
    except ValueError as error:
        raise Breach(str(error)) from None
    if finite:
        are = (numbers & _BF16_EXPONENT) != _BF16_EXPONENT if wire_dtype == "bfloat16" else np.isfinite(numbers)
        if not are.all():
            raise Breach("the edit must be finite", f"{int((~are).sum())} numbers that are not")
    return numbers


def edit_in(record: object) -> Array:
    """The one array of a record that holds an edit. Raises Breach."""
    if not isinstance(record, ArrayRecord):
        raise Breach("arrays must be an ArrayRecord", shown(type(record).__name__))
    array = fields(record, "arrays", ["edit"])["edit"]
    assert isinstance(array, Array)  # an ArrayRecord holds nothing else
    return array
