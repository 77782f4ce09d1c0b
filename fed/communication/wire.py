"""One edit as one flat array: what crosses the network, in which dtype, of what size.

Flower ships every array as an object of its own, so an edit is packed into one. bfloat16 has no numpy dtype and
travels as a uint16 view.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WIRE_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def bytes_per_number(dtype: str) -> int:
    """Bytes of one number on the wire. Raises ValueError for an unknown dtype."""
    return _torch_dtype(dtype).itemsize


def _torch_dtype(dtype: str) -> torch.dtype:
    if dtype not in WIRE_DTYPES:
        raise ValueError(f"wire-dtype must be one of {', '.join(WIRE_DTYPES)}, got {dtype!r}")
    return WIRE_DTYPES[dtype]


def pack(tensors: Mapping[str, Tensor], dtype: str = "float32") -> NDArray[np.generic]:
    """The tensors one after the other, in the mapping's order, as a flat array.

    Returns:
        (n,) float32, float16 or float64; uint16 holding the bits for bfloat16.
    """
    flat = torch.cat([t.detach().cpu().flatten() for t in tensors.values()]).to(_torch_dtype(dtype))
    return flat.view(torch.uint16).numpy() if dtype == "bfloat16" else flat.numpy()


def unpack(
    array: NDArray[np.generic], shapes: Mapping[str, tuple[int, ...]], dtype: str = "float32"
) -> dict[str, Tensor]:
    """The inverse of `pack`, widened to float32 (float64 stays).

    Raises:
        ValueError: an array of another length or dtype than the shapes and `dtype` say.
    """
    sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
    total = sum(sizes.values())
    if array.ndim != 1 or array.size != total:
        raise ValueError(f"a packed edit must be a flat array of {total} numbers, got shape {array.shape}")
    flat = torch.from_numpy(np.array(array))  # a copy: what comes off the wire is read-only
    travels = torch.uint16 if dtype == "bfloat16" else _torch_dtype(dtype)
    if flat.dtype != travels:
        raise ValueError(f"a {dtype} edit must travel as {str(travels).split('.')[1]}, got {array.dtype}")
    if dtype == "bfloat16":
        flat = flat.view(torch.bfloat16)
    pieces = (flat if dtype == "float64" else flat.float()).split(list(sizes.values()))
    return {name: piece.view(shapes[name]).clone() for name, piece in zip(sizes, pieces, strict=True)}
