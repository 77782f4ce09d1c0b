"""Attention on a CPU whose numbers hang on a row alone: not on padding, on the rows beside it, or on threads.

Heads that share keys and values are stacked, token by token, into one product with them, so that these are neither
copied for each head nor their gradients added up head by head. The softmax's gradient is taken from the output, dO · O
over a head's entries, in place of dP · P over all tokens (FlashAttention-2, arXiv:2307.08691, section 3.1.2): torch's
own softmax adds those up in an order that depends on the number of rows and of threads.

    S = Q Kᵀ s        P = softmax(S + mask), float32 at least        O = P V        dS = P (dO Vᵀ − dO · O)

Promise: padding, neighbours and threads change no bit of a row, where they change none of the products'
(`tests/fed/base/architecture/test_grouped_attention.py`).

Shapes:  B rows · H heads, G of which share keys and values, so H / G groups · T queries · S keys · D entries of a head
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NAME = "grouped"  # among transformers' implementations of attention
# Bases whose blocks ask for nothing but this: no soft caps, no sinks; a sliding window is in the mask.
_PLAIN = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "smollm3")


def use(model: Any) -> bool:
    """Let a model on the host attend so; whether it does. In float64 torch's own attention stays, the reference."""
    if model.device.type != "cpu" or model.dtype == torch.float64 or model.config.model_type not in _PLAIN:
        return False
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, eager_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, eager_mask)
    model.set_attn_implementation(NAME)
    return True


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as transformers' models ask for it.

    Args:
        query: (B, H, T, D). key, value: (B, H / G, S, D).
        attention_mask: (B, 1, T, S), added before the softmax; None adds nothing.
    Returns:
        ((B, T, H, D), None in place of the weights).
    Raises:
        ValueError: dropout, which a frozen base has none of.
    """
    if dropout:
        raise ValueError(f"dropout of attention must be 0 in a frozen base, got {dropout}")
    output: Tensor = _Attention.apply(query, key, value, attention_mask, scaling)
    return output, None


class _Attention(torch.autograd.Function):
    """The formulas at the top of this file. Padding stands at the end of every sum, where its zeros change nothing."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
        batch, heads, tokens, width = query.shape
        groups, keys = key.shape[1], key.shape[2]
        q = _stacked((query * scaling).transpose(1, 2), groups)
        k, v = key.reshape(-1, keys, width), value.reshape(-1, keys, width)
        scores = torch.bmm(q, k.mT).view(batch, groups, tokens, heads // groups, keys)
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if mask is not None:
            wide += mask.transpose(1, 2).unsqueeze(1)
        weights = torch.softmax(wide, -1).view(len(k), -1, keys)
        output = torch.bmm(weights.to(v.dtype), v)
        ctx.save_for_backward(q, k, v, weights, output)
        ctx.sizes, ctx.scaling = (batch, groups, tokens), scaling
        return _apart(output, batch, tokens)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, weights, output = ctx.saved_tensors
        batch, groups, tokens = ctx.sizes
        slopes = _stacked(gradients[0], groups)
        to_weights = torch.bmm(slopes, v.mT).to(weights.dtype)
        mean = (slopes.to(weights.dtype) * output).sum(-1, keepdim=True)
        to_scores = to_weights.sub_(mean).mul_(weights).to(q.dtype)
        to_query = _apart(torch.bmm(to_scores, k), batch, tokens).transpose(1, 2) * ctx.scaling
        to_key = torch.bmm(to_scores.mT, q).view(batch, groups, *k.shape[1:])
        to_value = torch.bmm(weights.mT.to(slopes.dtype), slopes).view(batch, groups, *v.shape[1:])
        return to_query, to_key, to_value, None, None


def _stacked(heads: Tensor, groups: int) -> Tensor:
    """(B, T, H, D) -> (B · groups, T · G, D): a group's heads side by side, token by token."""
    batch, tokens, _, width = heads.shape
    return heads.unflatten(2, (groups, -1)).transpose(1, 2).reshape(batch * groups, -1, width)


def _apart(stacked: Tensor, batch: int, tokens: int) -> Tensor:
    """(B · groups, T · G, D) -> (B, T, H, D): the way back."""
    groups, width = len(stacked) // batch, stacked.shape[-1]
    return stacked.view(batch, groups, tokens, -1, width).transpose(1, 2).reshape(batch, tokens, -1, width)
