"""Rows of tokens, the minibatches each user would take alone, and how many users' rows share one forward pass.

Every draw comes from a generator of its own named by (seed, purpose, round, user): which node hosts whom
changes nothing. A row is a prompt and its completion (`fed.forward.tokenization` says how texts become them).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fed.forward.tokenization import Worded, as_tokens, worded


@dataclass(frozen=True)
class Row:
    """Token ids of a prompt and of its completion (EOS included where it trains).

    Attributes:
        asked: the prompt's tokens where no completion follows; () where they are the same.
    """

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    asked: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)

    @property
    def question(self) -> tuple[int, ...]:
        """What an answer is asked by: the prompt as it is without a completion behind it."""
        return self.asked or self.prompt


def tokenize(
    pairs: Iterable[Sequence[str] | Worded],
    tokenizer: Any,
    max_length: int,
    *,
    prompt_format: str = "plain",
    answer_room: int = 0,
) -> list[Row]:
    """Prompts and completions to rows (`fed.forward.tokenization`); a completion ends with EOS, or its format's end.

    A row longer than `max_length` tokens loses the start of its prompt, for the cue at its end and the completion
    matter most, and BOS stays; a completion that does not fit behind what must stay of its prompt loses its end.

    Args:
        pairs: (prompt, completion), with an attribute `about` where the prompt begins with a text about the user; or
        texts that say more of themselves.
        tokenizer: the base's.
        max_length: tokens of a row.
        prompt_format: "plain", the texts as they are; or "chat", in the turns of the tokenizer's own template.
        answer_room: tokens that shall fit behind every prompt, whatever its completion takes.
    Raises:
        ValueError: what must stay of a prompt leaves no room for a completion. ChatTemplateError: no usable template.
    """
    texts = (pair if isinstance(pair, Worded) else worded(pair, tokenizer, prompt_format) for pair in pairs)
    return [Row(*as_tokens(text, tokenizer, max_length, answer_room)) for text in texts]


def minibatches(count: int, batch_size: int, epochs: int, generator: torch.Generator) -> list[list[int]]:
    """The row numbers of each step of one user's training: every epoch a fresh permutation, cut in batches."""
    steps = []
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator).tolist()
        steps += [order[start : start + batch_size] for start in range(0, count, batch_size)]
    return steps


def under_token_budget(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Split rows, longest first, into batches of at most `budget` tokens after padding (one row at least)."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    batch: list[int] = []
    for i in order:
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


@dataclass(frozen=True)
class Batch:
    """Rows padded to one length.

    Attributes:
        input_ids, attention_mask, position_ids: (B, T) int64. prompt, tokens: (B, T) bool, True on the
        prompt's and on all real tokens. labels: (B, T) bool, True on completion tokens.
        cache: keys and values of P tokens that came before (`fed.forward.prefix_cache`); attention_mask is then (B, P +
        T).
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    prompt: Tensor
    tokens: Tensor
    cache: Any = None

    @property
    def labels(self) -> Tensor:
        return self.tokens & ~self.prompt

    @property
    def size(self) -> int:
        return self.input_ids.shape[0]


def to_device(tensor: Tensor, device: str | torch.device) -> Tensor:
    """A tensor of the host's elsewhere; to a GPU from pinned memory, so that the host need not wait for the copy."""
    if torch.device(device).type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def pad(rows: Sequence[Row], pad_id: int, device: str, *, left: bool = False, prompts_only: bool = False) -> Batch:
    """Pad rows on the right (training) or the left (generation, where the prompt's last tokens must align)."""
    bodies = [row.question if prompts_only else row.prompt + row.completion for row in rows]
    width = max(len(body) for body in bodies)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    tokens = torch.zeros((len(rows), width), dtype=torch.bool)
    prompt = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, (row, body) in enumerate(zip(rows, bodies, strict=True)):
        start = width - len(body) if left else 0
        ids[i, start : start + len(body)] = torch.tensor(body, dtype=torch.int64)
        tokens[i, start : start + len(body)] = True
        prompt[i, start : start + len(row.question if prompts_only else row.prompt)] = True
    positions = (tokens.cumsum(-1) - 1).clamp(min=0)
    moved = (to_device(t, device) for t in (ids, tokens.long(), positions, prompt, tokens))
    return Batch(*moved)
