"""The passes of decoding after the first: one new token a row, or all tokens again where a base keeps no cache.

Shapes:  B rows · T tokens so far · V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from fed.base.architecture.cache_kinds import mask_after, select_rows
from fed.base.model import BaseModel
from fed.edits.stack import AttachedStack, Edits
from fed.forward.batching import Batch
from fed.forward.last_logits import last_logits


class Steps(Protocol):
    """What the loop over new tokens asks of the passes; rows are told by their places in the batch."""

    def keep(self, places: Sequence[int]) -> bool:
        """Let all other rows leave, and say whether they did; where they cannot, they go on and nobody reads them."""

    def read(self, tokens: Sequence[int]) -> Tensor:
        """(B, V) logits after each row's next token."""


class GrowingSteps:
    """Steps over a cache that grows with every token, or without one."""

    def __init__(
        self, base: BaseModel, batch: Batch, cache: Any, edits: Sequence[Edits], attached: AttachedStack
    ) -> None:
        """After the prompts' pass.

        Args:
            batch: the prompts, padded on the left.
            cache: what was read of them; None where the base's serves no steps.
            edits: of each row.
            attached: the stack on the base.
        """
        self._base, self._cache, self._attached = base, cache, attached
        self._ids, self._attention, self._position = batch.input_ids, batch.attention_mask, batch.position_ids
        self._prompt, self._edits = batch.prompt.shape[1], list(edits)
        attached.take(self._edits)

    def keep(self, places: Sequence[int]) -> bool:
        if not self._base.serves.leaving:
            return False
        index = torch.tensor(places, device=self._base.device)
        if self._cache is not None:
            select_rows(self._cache, index)
        self._ids, self._attention, self._position = self._ids[index], self._attention[index], self._position[index]
        self._edits = [self._edits[place] for place in places]
        self._attached.take(self._edits)
        return True

    def read(self, tokens: Sequence[int]) -> Tensor:
        cache, device = self._cache, self._base.device
        next_ids = torch.tensor(tokens, device=device).unsqueeze(1)
        next_position = self._position[:, -1:] + 1
        self._attention = torch.cat([self._attention, self._attention.new_ones(len(tokens), 1)], dim=1)
        self._ids = torch.cat([self._ids, next_ids], dim=1) if cache is None else next_ids
        self._position = torch.cat([self._position, next_position], dim=1) if cache is None else next_position
        # Which of its tokens are edited.
        if cache is None:
            tokens_there = self._attention.bool()
            prompt = tokens_there & (torch.arange(self._ids.shape[1], device=device) < self._prompt)
            self._attached.at(prompt, tokens_there)
        else:
            self._attached.at_generated(len(tokens))
        mask = self._attention if cache is None else mask_after(cache, self._attention)
        return last_logits(self._base.model, self._ids, mask, self._position, cache)
