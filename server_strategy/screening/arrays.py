"""An edit, or the change of one, off the network: of the shape and dtype that is expected, and finite.

Flower's `Array` says its dtype and shape beside the bytes, and the bytes say them again (`fed.communication.npy`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray
from torch import Tensor

from fed.communication import npy
from fed.communication.quantization import Packing
from server_strategy.screening.breach import Breach, shown
from server_strategy.screening.values import fields

_STYPE = "numpy.ndarray"


def numbers_of(array: Array, shape: tuple[int, ...], dtype_name: str, *, finite: bool = True) -> NDArray[Any]:
    """The array's numbers, read-only, as they travelled; of this shape and dtype.

    Args:
        array: off the network.
        shape: what it must have.
        dtype_name: what it must travel as, by numpy's name.
        finite: whether every number must be; of several users' edits in one array each is asked alone.
    Raises:
        Breach: anything else.
    """
    dtype = np.dtype(dtype_name)
    if array.stype != _STYPE:
        raise Breach(f"the edit must be serialized as {_STYPE}", shown(array.stype))
    if array.dtype != str(dtype):
        raise Breach(f"the edit must travel as {dtype}", shown(array.dtype))
    if tuple(array.shape) != shape:
        raise Breach(f"the edit must have shape {shape}", shown(tuple(array.shape)))
    try:
        numbers = npy.numbers(array.data, shape, dtype_name)
    except ValueError as error:
        raise Breach(str(error)) from None
    if finite:
        are = np.isfinite(numbers)
        if not are.all():
            raise Breach("the edit must be finite", f"{int((~are).sum())} numbers that are not")
    return numbers


def packed_of(array: Array, packing: Packing, rows: int | None = None) -> NDArray[np.uint8]:
    """The bytes of a change, read-only; of so many users' changes of one length, a row each.

    Args:
        array: off the network.
        packing: says how many bytes a change has, or at most has.
        rows: None: one change, flat.
    Raises:
        Breach: anything else. What the bytes say is not looked at.
    """
    shape = tuple(array.shape)
    length = shape[-1] if shape and isinstance(shape[-1], int) else 0
    if not (1 if packing.deflated else packing.most_bytes) <= length <= packing.most_bytes:
        bytes_of_one = f"{packing.most_bytes} bytes or fewer" if packing.deflated else f"{packing.most_bytes} bytes"
        raise Breach(f"a change in {packing.dtype} must have {bytes_of_one}", shown(shape))
    return numbers_of(array, (length,) if rows is None else (rows, length), "uint8", finite=False)


def change_of(array: Array, packing: Packing) -> dict[str, Tensor]:
    """The change that an array off the network holds. Raises Breach."""
    try:
        return packing.unpack(packed_of(array, packing))
    except ValueError as error:
        raise Breach(str(error)) from None


def edit_in(record: object) -> Array:
    """The one array of a record that holds an edit. Raises Breach."""
    if not isinstance(record, ArrayRecord):
        raise Breach("arrays must be an ArrayRecord", shown(type(record).__name__))
    array = fields(record, "arrays", ["edit"])["edit"]
    assert isinstance(array, Array)  # an ArrayRecord holds nothing else
    return array
