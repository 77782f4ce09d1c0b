"""How long the base model's hidden states are: the measure that a bias in an edit is held against.

    N_l = median over tokens, but each text's first (the attention sink), of |h_l|     h_l: output of block l, float64

Taken once a base model over the plain sentences below and remembered in the cache folder, so that a device can judge an
edit that it is handed without loading the base.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import torch

from fed.atomic_write import write_text
from fed.base import model as base_model
from fed.base import sources
from fed.base.model import BaseModel
from fed.edits.hooks import decoder_blocks
from fed.forward.batching import pad, tokenize

SENTENCES = (
    "The ferry leaves the harbour at nine and comes back in the evening.",
    "We planted two rows of beans behind the house last spring.",
    "Most of the letters in that box were written before the war.",
    "Could you tell me which of these three films you liked best, and why?",
)


@torch.no_grad()
def measure(base: BaseModel) -> tuple[float, ...]:
    """The median norm at the output of each decoder block, from the first to the last."""
    rows = tokenize([("", sentence) for sentence in SENTENCES], base.tokenizer, 64)
    batch = pad(rows, base.pad_id, base.device)
    counted = batch.tokens.clone()
    counted[:, 0] = False
    norms: list[float] = []

    def note(_module: Any, _inputs: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        norms.append(float(states.cpu().double().norm(dim=-1)[counted.cpu()].median()))

    handles = [block.register_forward_hook(note) for block in decoder_blocks(base.model)]
    try:
        base.model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        )
    finally:
        for handle in handles:
            handle.remove()
    return tuple(norms)


def hidden_norms(source: str, fingerprint: str, *, device: str, dtype: str) -> tuple[float, ...]:
    """Those of the base model at `source`, remembered, or measured by loading it. Raises BaseModelError.

    Args:
        fingerprint: of its weights, by which they are remembered.
        device, dtype: what it is loaded with where it must be.
    """
    path = sources.cache_home() / "norms" / f"{fingerprint}.json"
    try:
        return tuple(float(norm) for norm in json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        pass  # never measured here
    norms = measure(base_model.load(source, device=device, dtype=dtype))
    with suppress(OSError):  # a cache that cannot be written costs time, no more
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(norms))
    return norms
