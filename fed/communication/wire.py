"""A whole edit as one flat array, and how many bytes an edit has on the wire.

Flower ships every array as an object of its own, so an edit is packed into one. What crosses by the run's wire-dtype:

    float32, float64           the whole edit, as it is
    float16, bfloat16,         its change from what both sides have (`fed.communication.changes`); a whole edit, where
    int8, int4                 one side has nothing, in float32
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed.communication.changes import packing

WIRE_DTYPES = ("float32", "float16", "bfloat16", "int8", "int4", "float64")
CODINGS = ("plain", "deflate")


def whole_dtype(wire_dtype: str) -> str:
    """The dtype of a whole edit. Raises ValueError for an unknown wire-dtype."""
    if wire_dtype not in WIRE_DTYPES:
        raise ValueError(f"wire-dtype must be one of {', '.join(WIRE_DTYPES)}, got {wire_dtype!r}")
    return "float64" if wire_dtype == "float64" else "float32"


def is_narrow(wire_dtype: str) -> bool:
    """Whether changes travel, and not edits. Raises ValueError for an unknown wire-dtype."""
    return whole_dtype(wire_dtype) != wire_dtype


def bytes_of(shapes: Mapping[str, tuple[int, ...]], wire_dtype: str) -> int:
    """Bytes of tensors of these shapes on the wire, before anything is deflated: of a change where that travels."""
    if is_narrow(wire_dtype) and shapes:
        return packing(shapes, wire_dtype).plain_bytes
    return np.dtype(whole_dtype(wire_dtype)).itemsize * sum(math.prod(shape) for shape in shapes.values())


def pack(tensors: Mapping[str, Tensor], wire_dtype: str = "float32") -> NDArray[np.generic]:
    """The tensors one after the other, in the mapping's order, as a flat array.

    Returns:
        (n,) float32; float64 where the wire has it.
    """
    dtype: torch.dtype = getattr(torch, whole_dtype(wire_dtype))
    return torch.cat([t.detach().cpu().flatten() for t in tensors.values()]).to(dtype).numpy()


def unpack(
    array: NDArray[np.generic], shapes: Mapping[str, tuple[int, ...]], wire_dtype: str = "float32"
) -> dict[str, Tensor]:
    """The inverse of `pack`.

    Raises:
        ValueError: an array of another length or dtype than the shapes and `wire_dtype` say.
    """
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    if array.ndim != 1 or array.size != total:
        raise ValueError(f"a packed edit must be a flat array of {total} numbers, got shape {array.shape}")
    if str(array.dtype) != whole_dtype(wire_dtype):
        raise ValueError(f"a whole edit must travel as {whole_dtype(wire_dtype)}, got {array.dtype}")
    flat = torch.from_numpy(np.array(array))  # a copy: what comes off the wire is read-only
    pieces = flat.split(list(sizes.values()))
    return {name: piece.view(shapes[name]).clone() for name, piece in zip(sizes, pieces, strict=True)}
