"""Attach edits to decoder blocks for the length of a `with`, leaving the model clean whatever happens.

A row of a batch passes through a sequence of stages (PerFit equation 2: collective, then personalized).
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

__all__ = ["EditSession", "Stage", "decoder_blocks", "edited"]


@dataclass
class Stage:
    """One edit of the composition, for the rows of the coming forward passes.

    Attributes:
        bank: the edits.
        index: (B,) int64, whose edit each row takes; None where one edit is shared by all rows.
        each: row i takes edit i of the bank, whatever `index` says.
        active: (B,) bool, rows that this stage edits at all; None for every row.
    """

    bank: EditBank
    index: Tensor | None = None
    active: Tensor | None = None
    each: bool = False


class EditSession:
    """The stages in force, and the mask of the coming forward pass. Made by `edited`."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = list(stages)
        self._per_layer: dict[int, list[tuple[Tensor, Tensor, Tensor, int]]] = {}  # … and the stage's number
        self._masks: list[Tensor | None] = [None] * len(self.stages)

    @property
    def layers(self) -> list[int]:
        return sorted({layer for stage in self.stages for layer in stage.bank.shape.layers})

    def set_rows(self, indices: Sequence[Tensor | None], actives: Sequence[Tensor | None]) -> None:
        """Choose, stage by stage, whose edit each row takes and which rows are edited."""
        for stage, index, active in zip(self.stages, indices, actives, strict=True):
            stage.index, stage.active = index, active
        self._per_layer.clear()

    def set_masks(self, masks: Sequence[Tensor | None]) -> None:
        """Per stage, (B, T) bool: where the coming forward pass is edited (see `Positions.mask`); None: everywhere."""
        if len(masks) != len(self.stages):
            raise ValueError(f"{len(self.stages)} stages need as many masks, got {len(masks)}")
        self._masks = list(masks)

    def gather(self) -> None:
        """Pick the rows' edits out of the banks; once per set of rows, kept over decoding steps."""
        self._per_layer.clear()
        for number, stage in enumerate(self.stages):
            rows = stage.bank.each() if stage.each else stage.bank.rows(stage.index)
            for layer, (R, W, b) in zip(stage.bank.shape.layers, rows, strict=True):
                self._per_layer.setdefault(layer, []).append((R, W, b, number))

    def apply(self, layer: int, h: Tensor) -> Tensor:
        for R, W, b, number in self._per_layer[layer]:
            mask, active = self._masks[number], self.stages[number].active
            if active is not None:
                rows = active.unsqueeze(-1)
                mask = rows.expand(h.shape[:2]) if mask is None else mask & rows
            h = loreft(h, R, W, b, mask)
        return h


@contextmanager
def edited(model: nn.Module, stages: Sequence[Stage], *, first: int = 0) -> Iterator[EditSession]:
    """Edit the outputs of decoder blocks while the context lasts.

    Args:
        first: blocks below it are left alone, where passes resume at its output (`fed.forward.activation_cache`).
    Raises:
        ValueError: a layer that the model has not.
    """
    session = EditSession(stages)
    blocks = decoder_blocks(model)
    for layer in session.layers:
        if not 0 <= layer < len(blocks):
            raise ValueError(f"layers must lie in 0..{len(blocks) - 1} for this base model, got {layer}")

    def hook(layer: int) -> Any:
        def edit(_module: nn.Module, _inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (session.apply(layer, output[0]), *output[1:])
            return session.apply(layer, output)

        return edit

    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for layer in (layer for layer in session.layers if layer >= first):
            handles.append(blocks[layer].register_forward_hook(hook(layer)))
        yield session
    finally:
        for handle in handles:
            handle.remove()
