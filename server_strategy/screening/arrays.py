"""An edit off the network as numbers, read without a word of its own about its size.

Flower's `Array` says its dtype and shape twice, beside the bytes and in the npy header before them, and numpy makes
room for what the header says. Here both are held against what is expected, and the bytes against their number, before
a number is read; nothing is allocated.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from server_strategy.screening.breach import Breach, shown
from server_strategy.screening.values import fields

_MAGIC = b"\x93NUMPY\x01\x00"
_LONGEST_HEADER = 512  # bytes; numpy's own of such arrays have 118
_STYPE = "numpy.ndarray"
_BF16_EXPONENT = 0x7F80  # all ones: infinite or NaN


def travelling(wire_dtype: str) -> np.dtype[Any]:
    """How numbers of this wire-dtype lie in an array: bfloat16 as the bits that it is."""
    return np.dtype("uint16" if wire_dtype == "bfloat16" else wire_dtype)


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
    what = "the edit"
    dtype = travelling(wire_dtype)
    if array.stype != _STYPE:
        raise Breach(f"{what} must be serialized as {_STYPE}", shown(array.stype))
    if array.dtype != str(dtype):
        raise Breach(f"{what} must travel as {dtype}", shown(array.dtype))
    if tuple(array.shape) != shape:
        raise Breach(f"{what} must have shape {shape}", shown(tuple(array.shape)))
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = array.data
    if not size <= len(data) <= size + _LONGEST_HEADER:
        raise Breach(f"{what} must hold {size} bytes and a header", f"{len(data)}")
    if header_of(data) != (shape, False, dtype) or len(data) - size != _header_end(data):
        raise Breach(f"the header of {what} must say {dtype} of shape {shape}")
    numbers = np.frombuffer(data, dtype, offset=len(data) - size).reshape(shape)
    if finite:
        are = (numbers & _BF16_EXPONENT) != _BF16_EXPONENT if wire_dtype == "bfloat16" else np.isfinite(numbers)
        if not are.all():
            raise Breach(f"{what} must be finite", f"{int((~are).sum())} numbers that are not")
    return numbers


def edit_in(record: object) -> Array:
    """The one array of a record that holds an edit. Raises Breach."""
    if not isinstance(record, ArrayRecord):
        raise Breach("arrays must be an ArrayRecord", shown(type(record).__name__))
    array = fields(record, "arrays", ["edit"])["edit"]
    assert isinstance(array, Array)  # an ArrayRecord holds nothing else
    return array


def _header_end(data: bytes) -> int:
    return len(_MAGIC) + 2 + int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "little")


def header_of(data: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """(shape, whether in Fortran's order, dtype) as the bytes' npy header says; None where it is none of version 1."""
    end = _header_end(data)
    if not data.startswith(_MAGIC) or end > min(len(data), _LONGEST_HEADER):
        return None
    try:
        return np.lib.format.read_array_header_1_0(BytesIO(data[len(_MAGIC) : end]), max_header_size=_LONGEST_HEADER)
    except Exception:  # a header is a Python literal, and can break its reader in many ways
        return None
