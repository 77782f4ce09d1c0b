"""The change from one edit to another, in coordinates that can be rounded, and what rounding left out.

    an edit {"R", "W", "b"}     in R, D = W − R and b        anything else (D and b alone, LoRA's A and B) as it is

W itself is never rounded: it carries R, whose entries are a thousand times those of D in a small edit, so that W in
bfloat16 leaves nothing of RᵀD. What a change loses as it is packed is added to the next one (error feedback: Seide et
al., 2014; Karimireddy et al., 2019), by whoever sends it.

    e = c + e_before      sent = unpack(pack(e))      e_after = e − sent
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fed.communication.quantization import Packing
from fed.edits.loreft import in_coordinates

Tensors = dict[str, Tensor]


def packing(shapes: Mapping[str, tuple[int, ...]], dtype: str, *, deflated: bool = False) -> Packing:
    """How changes of edits with these shapes travel: D stands where W does."""
    renamed = {"D" if name == "W" and "R" in shapes else name: shape for name, shape in shapes.items()}
    return Packing(renamed, dtype, deflated)


def between(start: Mapping[str, Tensor], end: Mapping[str, Tensor]) -> Tensors:
    """The change that leads from one edit to the other, float64."""
    before, after = in_coordinates(start), in_coordinates(end)
    return {name: after[name] - before[name] for name in before}


def applied(start: Mapping[str, Tensor], change: Mapping[str, Tensor]) -> Tensors:
    """The edit that a change leads to, in the dtype of `start`.

    Promise: additions alone, number by number, so that two machines agree bit for bit, and a change of zeros gives
    `start` itself (tests/fed/communication/test_changes.py).
    """
    moved = {name: start[name].double() + change[name].double() for name in start if name in change}
    if "W" in start and "W" not in change:
        moved["W"] = start["W"].double() + (change["R"].double() + change["D"].double())
    return {name: moved[name].to(tensor.dtype) for name, tensor in start.items()}


@dataclass(frozen=True)
class Sent:
    """A change as it travels.

    Attributes:
        packed: its bytes.
        change: what those who unpack them read.
        feedback: what the bytes left out, float32.
    """

    packed: NDArray[np.uint8]
    change: Tensors
    feedback: Tensors


def sent(
    start: Mapping[str, Tensor],
    end: Mapping[str, Tensor],
    packing: Packing,
    draw: torch.Generator,
    *,
    feedback: Mapping[str, Tensor] | None = None,
) -> Sent:
    """The change from `start` to `end`, and what earlier ones left out, packed.

    Args:
        start: the edit that both sides have.
        end: the one that it is about.
        packing: how it travels.
        draw: decides how codes are rounded.
        feedback: of the change before; None: nothing was left out.
    Raises:
        NotFinite: the change is not.
    """
    change = between(start, end)
    if feedback is not None:
        change = {name: tensor + feedback[name].double() for name, tensor in change.items()}
    packed = packing.pack(change, draw)
    unpacked = packing.unpack(packed)
    left_out = {name: (tensor - unpacked[name].double()).float() for name, tensor in change.items()}
    return Sent(packed, unpacked, left_out)
