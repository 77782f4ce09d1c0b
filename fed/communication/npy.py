"""An array's numbers from its bytes off the network, without a word of their own about their size.

The npy header before the numbers says a dtype and a shape, and numpy makes room for what it says. Here it is held
against what is expected, and the bytes against their number, before a number is read; nothing is allocated.
"""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MAGIC = b"\x93NUMPY\x01\x00"
_LONGEST_HEADER = 512  # bytes; numpy's own of such arrays have 118


def numbers(data: bytes, shape: tuple[int, ...], dtype_name: str) -> NDArray[Any]:
    """The numbers, read-only, as they travelled.

    Args:
        data: an npy file of version 1, as `numpy.save` writes it.
        shape: what it must have.
        dtype_name: what it must hold, by numpy's name.
    Raises:
        ValueError: it is anything else.
    """
    dtype = np.dtype(dtype_name)
    size = math.prod(shape) * dtype.itemsize
    if not size <= len(data) <= size + _LONGEST_HEADER:
        raise ValueError(f"an edit must hold {size} bytes and a header, got {len(data)}")
    end = len(_MAGIC) + 2 + int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 2], "little")
    if _header(data, end) != (shape, False, dtype) or len(data) - size != end:
        raise ValueError(f"the header of an edit must say {dtype} of shape {shape}")
    return np.frombuffer(data, dtype, offset=end).reshape(shape)


def _header(data: bytes, end: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]] | None:
    """(shape, whether in Fortran's order, dtype) as the bytes before `end` say; None where they are no such header."""
    if not data.startswith(_MAGIC) or end > min(len(data), _LONGEST_HEADER):
        return None
    try:
        return np.lib.format.read_array_header_1_0(BytesIO(data[len(_MAGIC) : end]), max_header_size=_LONGEST_HEADER)
    except Exception:  # a header is a Python literal, and can break its reader in many ways
        return None
