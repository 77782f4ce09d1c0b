"""The logits after each row's last token, all that decoding asks of a pass.

The last of T states is a view with a stride, which torch multiplies row by row with the whole output projection: on a
CPU in bfloat16 a batch of 24 rows spent three quarters of its pass there. A copy of these few states costs nothing.

Shapes:  B rows · T tokens · V vocabulary
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from fed.base.architecture.cache_kinds import with_cache


def last_logits(
    model: Any, input_ids: Tensor, attention_mask: Tensor | None, position_ids: Tensor, cache: Any
) -> Tensor:
    """(B, V) of a pass over (B, T) tokens.

    Args:
        attention_mask: of the cached tokens too; None where the cache has states alone.
        cache: what was read before, and takes what is read now; None: a pass without one.
    """

    def copied(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].contiguous(), *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(copied)
    try:
        output = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            logits_to_keep=1,
            **with_cache(model, cache),
        )
    finally:
        handle.remove()
    logits: Tensor = output.logits[:, -1]
    return logits
