"""The loss of completion tokens from logits at these tokens alone, and not kept longer than they are needed.

With a vocabulary of 49,152 a token's logits weigh as much as 170 of its hidden states. They are therefore computed only
where a label is, and where nothing but one bias-free Linear makes them, their gradient is taken on the way: a few of
them at a time are float32, as many as stay in the processor's cache, and the backward pass is a product that is already
done. What follows the last block's attention, whose keys and values alone other tokens need, is computed there too.

Shapes:  B rows · T tokens · N completion tokens in a batch · d hidden size · V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fed.edits.hooks import decoder_blocks
from fed.forward.batching import Batch

# Their logits are the output projection's and nothing is done to them after it (no soft cap, no scale).
_BARE_LOGITS = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "smollm3")
# Their blocks are  h ← h + attention(norm(h)),  then  h ← h + mlp(norm(h)), token by token.
_PLAIN_BLOCKS = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
_AT_ONCE = 512  # completion tokens whose logits live at one time
_IN_CACHE = 1 << 20  # logits that are normalized at one time on a CPU: 4 MiB of float32, which stay near it


class Chosen:
    """Where the coming forward pass needs logits, and the hidden states there. Made by `logits_only_where`."""

    def __init__(self, head: Any, fused: bool) -> None:
        self.fused, self.head = fused, head
        self.where = torch.empty(0, dtype=torch.int64)
        self.hidden: Tensor | None = None

    def __call__(self, mask: Tensor) -> None:
        """Choose: (B, T) bool; the model's logits are then (1, N, V), the masked positions in row-major order."""
        self.where = mask.flatten().nonzero()[:, 0]

    def of(self, states: Tensor) -> Tensor:
        """(B, T, d) -> (1, N, d), at the chosen positions."""
        return states.flatten(0, 1).index_select(0, self.where).unsqueeze(0)


class _OnlyChosen(nn.Module):
    """Stands in for the last block: what follows its attention is computed at the chosen positions, (1, N, d)."""

    def __init__(self, block: nn.Module, chosen: Chosen) -> None:
        super().__init__()
        self.__dict__["_block"], self._chosen = block, chosen  # not a submodule: the block stays where it was

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)  # such as `attention_type`, which a model's loop asks for

    def forward(self, hidden: Tensor, **given: Any) -> Tensor:
        block, chosen = self.__dict__["_block"], self._chosen
        handle = block.self_attn.o_proj.register_forward_pre_hook(lambda _module, inputs: (chosen.of(inputs[0]),))
        try:
            attended, *_ = block.self_attn(hidden_states=block.input_layernorm(hidden), **given)
        finally:
            handle.remove()
        hidden = chosen.of(hidden) + attended
        states: Tensor = hidden + block.mlp(block.post_attention_layernorm(hidden))
        return states


@contextmanager
def logits_only_where(model: nn.Module, *, fused: bool | None = None, whole_block: bool = True) -> Iterator[Chosen]:
    """Compute the output projection only at chosen positions, by the model's own code.

    Args:
        fused: leave even these to `completion_nll`: the model's logits then come out empty. None: where its logits
            are one bare Linear's.
        whole_block: compute the last block at every position; False where nothing hangs on its output or in it, of
            which a base of known form then computes the part that follows the attention at these positions alone.
    """
    causal_lm: Any = model
    head = causal_lm.get_output_embeddings()
    if fused is None:
        fused = isinstance(head, nn.Linear) and head.bias is None and causal_lm.config.model_type in _BARE_LOGITS
    chosen = Chosen(head, fused)

    blocks = decoder_blocks(model)
    last = blocks[-1]
    thin = not whole_block and causal_lm.config.model_type in _PLAIN_BLOCKS

    def gather(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        picked = (inputs[0] if thin else chosen.of(inputs[0]))[0]
        chosen.hidden = picked
        return (picked[None, :0] if chosen.fused else picked.unsqueeze(0), *inputs[1:])

    handle = head.register_forward_pre_hook(gather)
    try:
        if thin:
            blocks[-1] = _OnlyChosen(last, chosen)
        yield chosen
    finally:
        handle.remove()
        blocks[-1] = last
        chosen.hidden = None


class _Nll(torch.autograd.Function):
    """-log softmax(h Wᵀ)[target] for each of N tokens; its gradient to h is made in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, wanted: bool) -> Tensor:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        nll = torch.empty(len(hidden), dtype=wide, device=hidden.device)
        slopes = torch.empty_like(hidden) if wanted else None
        few = max(1, _IN_CACHE // len(weight)) if hidden.device.type == "cpu" else _AT_ONCE
        for start in range(0, len(hidden), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            logits = hidden[part] @ weight.mT
            rows = zip(logits.split(few), targets[part].unsqueeze(1).split(few), nll[part].split(few), strict=True)
            for own, target, loss in rows:
                log_p = torch.log_softmax(own, -1, dtype=wide)
                loss.copy_(-log_p.gather(1, target)[:, 0])
                if slopes is not None:  # their gradient takes the logits' place
                    p = log_p.exp_()
                    own.copy_(p.scatter_add_(1, target, p.new_full(target.shape, -1.0)))
            if slopes is not None:
                slopes[part] = logits @ weight
        ctx.slopes = slopes
        return nll

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        return (ctx.slopes * gradients[0].unsqueeze(1)).to(ctx.slopes.dtype), None, None, None


def completion_nll(model: Callable[..., Any], batch: Batch, choose: Chosen) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of each completion token.

    Returns:
        (nll (N,) float32 or float64, row (N,) int64: which row of the batch each token belongs to).
    """
    before = torch.zeros_like(batch.labels)
    before[:, :-1] = batch.labels[:, 1:]  # the position before a token predicts it
    choose(before)
    output = model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
        past_key_values=batch.cache,
        use_cache=batch.cache is not None,
    )
    targets = batch.input_ids[:, 1:][batch.labels[:, 1:]]
    if choose.fused:
        assert choose.hidden is not None
        wanted = torch.is_grad_enabled() and choose.hidden.requires_grad
        nll = _Nll.apply(choose.hidden, choose.head.weight, targets, wanted)
    else:
        logits = output.logits[0]
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        nll = nn.functional.cross_entropy(logits, targets, reduction="none")
    return nll, before.nonzero()[:, 0]
