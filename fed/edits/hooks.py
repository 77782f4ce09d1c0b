"""Attach edits to decoder blocks for the length of a `with`, leaving the model clean whatever happens.

A row of a batch passes through a sequence of layers (PerFit equation 2: collective, then personalized).
Which users' edits the rows take, and where, is told to the session before each forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fed.base.architecture.text_model import decoder_blocks
from fed.edits.loreft import EditBank, loreft

__all__ = ["EditSession", "AttachedLayer", "decoder_blocks", "edited"]


@dataclass
class AttachedLayer:
    """One layer of the composition (`fed.edits.stack`), for the rows of the coming forward passes.

    Attributes:
        bank: the edits.
        index: (B,) int64, whose edit each row takes; None where one edit is shared by all rows.
        each: row i takes edit i of the bank, whatever `index` says.
        active: (B,) bool, rows that this layer edits at all; None for every row.
    """

    bank: EditBank
    index: Tensor | None = None
    active: Tensor | None = None
    each: bool = False


class EditSession:
    """The layers in force, and the mask of the coming forward pass. Made by `edited`."""

    def __init__(self, layers: Sequence[AttachedLayer]) -> None:
        self.layers = list(layers)
        self._per_block: dict[int, list[tuple[Tensor, Tensor, Tensor, int]]] = {}  # … and the layer's number
        self._masks: list[Tensor | None] = [None] * len(self.layers)

    @property
    def blocks(self) -> list[int]:
        return sorted({block for layer in self.layers for block in layer.bank.shape.blocks})

    def set_rows(self, indices: Sequence[Tensor | None], actives: Sequence[Tensor | None]) -> None:
        """Choose, layer by layer, whose edit each row takes and which rows are edited."""
        for layer, index, active in zip(self.layers, indices, actives, strict=True):
            layer.index, layer.active = index, active
        self._per_block.clear()

    def set_masks(self, masks: Sequence[Tensor | None]) -> None:
        """Per layer, (B, T) bool: where the coming forward pass is edited (see `Positions.mask`); None: everywhere."""
        if len(masks) != len(self.layers):
            raise ValueError(f"{len(self.layers)} layers need as many masks, got {len(masks)}")
        self._masks = list(masks)

    def gather(self) -> None:
        """Pick the rows' edits out of the banks; once per set of rows, kept over decoding steps."""
        self._per_block.clear()
        for number, layer in enumerate(self.layers):
            rows = layer.bank.each() if layer.each else layer.bank.rows(layer.index)
            for block, (R, W, b) in zip(layer.bank.shape.blocks, rows, strict=True):
                self._per_block.setdefault(block, []).append((R, W, b, number))

    def apply(self, block: int, h: Tensor) -> Tensor:
        for R, W, b, number in self._per_block[block]:
            mask, active = self._masks[number], self.layers[number].active
            if active is not None:
                rows = active.unsqueeze(-1)
                mask = rows.expand(h.shape[:2]) if mask is None else mask & rows
            h = loreft(h, R, W, b, mask)
        return h


@contextmanager
def edited(model: nn.Module, layers: Sequence[AttachedLayer], *, first: int = 0) -> Iterator[EditSession]:
    """Edit the outputs of decoder blocks while the context lasts.

    Args:
        first: blocks below it are left alone, where passes resume at its output (`fed.forward.activation_cache`).
    Raises:
        ValueError: a block that the model has not.
    """
    session = EditSession(layers)
    blocks = decoder_blocks(model)
    for block in session.blocks:
        if not 0 <= block < len(blocks):
            raise ValueError(f"layers must lie in 0..{len(blocks) - 1} for this base model, got {block}")

    def hook(block: int) -> Any:
        def edit(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (session.apply(block, output[0]), *output[1:])
            return session.apply(block, output)

        return edit

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for block in (block for block in session.blocks if block >= first):
            handles.append(blocks[block].register_forward_hook(hook(block)))
        yield session
    finally:
        for handle in handles:
            handle.remove()
