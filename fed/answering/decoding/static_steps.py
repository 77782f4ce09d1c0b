"""Steps in buffers of full length, so that every step of a batch runs the same kernels at the same addresses.

A step of few rows takes a GPU less time than its host needs to launch it. So there it is recorded once as a CUDA graph
and replayed; elsewhere it runs as it stands. A base whose pass asks the host for a number cannot be recorded, and the
run ends with CUDA's error. Rows that have ended stay in the batch. Asked for by PERFIT_GRAPHS=1 in the environment:
recording and replaying have not been run on a GPU by this project.

Promise: texts are those of steps over a growing cache, where rounding ties no two tokens
(`tests/fed/answering/decoding/test_static_steps.py`).

Shapes:  B rows · L tokens of a prompt and of the longest answer · V vocabulary
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fed.base.model import BaseModel
from fed.edits.stack import AttachedStack, Edits
from fed.forward.batching import Batch
from fed.forward.last_logits import last_logits

_WARM_UP = 2  # steps before a recording, in which libraries choose their kernels and take their workspaces


def wanted(base: BaseModel) -> bool:
    """Whether answers of this base are decoded so: on a CUDA GPU, where the environment asks for it."""
    return base.device.startswith("cuda") and os.environ.get("PERFIT_GRAPHS") == "1"


def serve(base: BaseModel, batch: Batch, new_tokens: int) -> bool:
    """Whether they can continue a batch: every token's keys and values are kept, and no row runs out of positions."""
    length = batch.input_ids.shape[1] + new_tokens
    return base.serves.prefix and base.serves.left and (base.context is None or length <= base.context)


class StaticSteps:
    """Steps over keys and values in place (`fed.answering.decoding.steps.Steps`)."""

    def __init__(
        self,
        base: BaseModel,
        batch: Batch,
        cache: Any,
        edits: Sequence[Edits],
        attached: AttachedStack,
        new_tokens: int,
    ) -> None:
        """After the prompts' pass.

        Args:
            batch: the prompts, padded on the left.
            cache: what was read of them, of which `serve` holds.
            edits: of each row.
            attached: the stack on the base.
            new_tokens: as many at most.
        """
        from transformers import StaticCache

        self._base = base
        rows, self._read = batch.input_ids.shape
        self._cache: Any = StaticCache(config=base.model.config, max_cache_len=self._read + new_tokens)
        for block, layer in enumerate(cache.layers):
            self._cache.update(layer.keys, layer.values, block)
        # A mask with a place for every token, which passes take as it is: the new tokens' open one by one.
        dtype = base.model.dtype
        closed = torch.finfo(dtype).min
        self._mask = torch.full((rows, 1, 1, self._read + new_tokens), closed, dtype=dtype, device=base.device)
        self._mask[..., : self._read] = (1 - batch.attention_mask[:, None, None].to(dtype)) * closed
        self._ids = batch.input_ids[:, -1:].clone()
        self._position = batch.position_ids[:, -1:].clone()
        self._graph: Any = None
        self._logits: Tensor | None = None
        attached.take(edits)
        attached.at_generated(rows)

    def keep(self, places: Sequence[int]) -> bool:
        return False  # the buffers stay where they are

    def read(self, tokens: Sequence[int]) -> Tensor:
        self._ids.copy_(torch.tensor(tokens).unsqueeze(1))
        self._position += 1
        self._mask[..., self._read] = 0
        self._read += 1
        if not self._base.device.startswith("cuda"):
            return self._pass()
        if self._graph is None:
            self._record()
        self._graph.replay()
        assert self._logits is not None
        return self._logits

    def _pass(self) -> Tensor:
        return last_logits(self._base.model, self._ids, self._mask, self._position, self._cache)

    def _record(self) -> None:
        """Record a step; what it and the warm-up before it wrote is written again, by the first replay."""
        with torch.cuda.device(self._base.device):
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    self._pass()
                    self._back()
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._logits = self._pass()

    def _back(self) -> None:
        """Let the next pass write where the last one did."""
        for layer in self._cache.layers:
            layer.cumulative_length -= 1
