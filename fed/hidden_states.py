"""Hidden states of a text: the output of one decoder block at the last token, read by a hook that is gone afterwards.

Shapes:  N texts · T tokens · d hidden size
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fed.base_model import BaseModel
from fed.batching import Row, pad, under_token_budget
from fed.hooks import decoder_blocks


@torch.no_grad()
def last_token(base: BaseModel, texts: Sequence[Sequence[int]], layer: int, *, token_budget: int = 2048) -> Tensor:
    """h_ℓ(text) at each text's last token.

    Args:
        texts: token ids, at least one each. layer: the decoder block ℓ whose output is read, from 0.
    Returns:
        (N, d), in the base's dtype, on its device.
    """
    pad_id: Any = base.tokenizer.pad_token_id
    pad_id = base.tokenizer.eos_token_id if pad_id is None else pad_id
    found: list[Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    states: dict[int, Tensor] = {}
    handle = decoder_blocks(base.model)[layer].register_forward_hook(keep)
    try:
        for picked in under_token_budget([len(text) for text in texts], token_budget):
            batch = pad([Row(tuple(texts[i]), ()) for i in picked], pad_id, base.device)
            base.model(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                position_ids=batch.position_ids,
                use_cache=False,
                logits_to_keep=1,
            )
            for place, (i, h) in enumerate(zip(picked, found.pop(), strict=True)):
                states[i] = h[int(batch.tokens[place].sum()) - 1]
    finally:
        handle.remove()
    return torch.stack([states[i] for i in range(len(texts))])
