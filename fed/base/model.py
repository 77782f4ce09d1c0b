"""The frozen base LLM that every user shares, loaded: from where (`sources`), in which dtype and on what (`device`).

One process keeps one copy of each base model: a Ray actor lives all run, so its clients share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch

from fed.base import gpu_kernels, host_memory, mapped_weights
from fed.base.architecture import grouped_attention, text_model
from fed.base.architecture.cache_kinds import Served, served_by
from fed.base.device import DTYPES, choose_device, choose_dtype
from fed.base.skeleton import Skeleton, context_of
from fed.base.sources import EMBEDDED, cache_home, fingerprint, resolve
from fed.base.tokens import special_ids


@dataclass(frozen=True)
class BaseModel:
    """A frozen causal LM with its tokenizer.

    Attributes:
        name: what was asked for, in words a reader can check. fingerprint: 16 hex digits over the
        configuration and a sample of the weight files.
    """

    name: str
    model: Any  # a transformers PreTrainedModel
    tokenizer: Any
    dtype: str
    device: str
    fingerprint: str

    @cached_property
    def skeleton(self) -> Skeleton:
        """The model's shapes, all that a server needs to know of it."""
        return Skeleton.of(self.name, self.model)

    @cached_property
    def serves(self) -> Served:
        """What the model's cache can serve; ask it while no edits are attached."""
        return served_by(self.model, self.skeleton.layers)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model has embeddings of; ids are below it."""
        return int(self.model.get_input_embeddings().weight.shape[0])

    @property
    def pad_id(self) -> int:
        """The token that fills short rows (`fed.base.tokens.special_ids`)."""
        return special_ids.pad_id(self.tokenizer, self.vocabulary)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """The tokens that end a text (`fed.base.tokens.special_ids`)."""
        return special_ids.end_ids(self.model, self.tokenizer, self.vocabulary)

    @cached_property
    def context(self) -> int | None:
        """How many tokens the model was made to read at once; None: its configuration names no limit."""
        return context_of(self.model.config.get_text_config(decoder=True).to_dict())

    def describe(self) -> dict[str, Any]:
        """The `base_model` entry of report.json; `left_out` where its cache cannot serve every feature."""
        left_out = self.serves.left_out()
        return {
            "name": self.name,
            "parameters": self.skeleton.parameters,
            "hidden_size": self.skeleton.hidden_size,
            "layers": self.skeleton.layers,
            "dtype": self.dtype,
            "device": self.device,
            **({"left_out": left_out} if left_out else {}),
        }


def load(source: str = EMBEDDED, *, device: str = "auto", dtype: str = "auto") -> BaseModel:
    """Load and freeze a base model; the same arguments give the same object within a process.

    Raises:
        BaseModelError: nothing readable at `source`; one line with the rule, the value and the fix.
    """
    chosen = choose_device(device)
    return _load(source, chosen, choose_dtype(dtype, chosen))


def forget() -> None:
    """Let go of the base models that `load` keeps.

    Promise: nothing else in `fed` keeps one that its user has let go of (tests/fed/test_weak_memory.py).
    """
    _load.cache_clear()


@lru_cache(maxsize=2)
def _load(source: str, device: str, dtype: str) -> BaseModel:
    if device == "cpu":
        host_memory.bound()
    name, folder = resolve(source)
    # On a CPU torch's fused kernel loses to plain products for rows of some fifty tokens: to our `grouped_attention`,
    # or to transformers' eager one where a base asks for more. Both would spoil float64 by a softmax in float32.
    attention = "eager" if device == "cpu" and dtype != "float64" else None
    tokenizer = text_model.read_tokenizer(Path(folder), source)
    weights = mapped_weights.folder_in(Path(folder), DTYPES[dtype], cache_home()) if device == "cpu" else Path(folder)
    model: Any = text_model.read(weights, source, dtype=DTYPES[dtype], attention=attention)
    model = model.to(torch.device(device))
    model.requires_grad_(False)
    model.eval()
    gpu_kernels.fused(model, device)
    grouped_attention.use(model)
    text_model.require_embeddings(tokenizer, model, source)
    return BaseModel(name, model, tokenizer, dtype, device, fingerprint(Path(folder)))
