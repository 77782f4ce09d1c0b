"""Directions as edits: one is added wherever an answer's token is read off, at any dose (Zhang et al., 2025).

    φ(h) = h + α s          at one block, from the prompt's last token on

which is LoReFT with one row: R = s / ‖s‖, W = R, b = α ‖s‖. So the code that reads trained edits reads these.

Shapes:  N directions · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fed.edits.loreft import EditBank, EditShape
from fed.edits.positions import Positions
from fed.edits.stack import Layer


def steering(directions: Tensor, doses: Sequence[float], block: int) -> Layer:
    """A layer whose edit number `n · len(doses) + k` adds `doses[k] · directions[n]`.

    Args:
        directions: (N, d), in whose dtype the edits are; one of zeros adds nothing.
        doses: α, of any sign.
        block: the decoder block, from 0.
    """
    shape = EditShape((block,), 1, directions.shape[1])
    edits = []
    for s in directions:
        R = torch.nn.functional.normalize(s, dim=0).view(1, 1, -1)
        edits += [{"R": R, "W": R.clone(), "b": (dose * s.norm()).view(1, 1)} for dose in doses]
    return Layer(EditBank.from_tensors(shape, edits), Positions.parse("answer"))
