"""Rows of tokens, the minibatches each user would take alone, and how many users' rows share one forward pass.

Every draw comes from a generator of its own named by (seed, purpose, round, user): which node hosts whom
changes nothing. A row is a prompt and its completion, tokenized apart so that the loss knows where labels start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Row:
    """Token ids of a prompt and of its completion (EOS included where it trains)."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


def tokenize(pairs: Iterable[tuple[str, str]], tokenizer: Any, max_length: int) -> list[Row]:
    """(prompt, completion) texts to rows; the completion ends with EOS.

    A row longer than `max_length` tokens loses the start of its prompt, for the cue at its end and the
    completion matter most; a completion longer than that loses its end.
    """
    rows = []
    for prompt, completion in pairs:
        target = tokenizer(completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        target = target[: max_length - 1]
        source = tokenizer(prompt, add_special_tokens=True)["input_ids"]
        rows.append(Row(tuple(source[-(max_length - len(target)) :]), tuple(target)))
    return rows


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
    bodies = [row.prompt if prompts_only else row.prompt + row.completion for row in rows]
    width = max(len(body) for body in bodies)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.int64)
    tokens = torch.zeros((len(rows), width), dtype=torch.bool)
    prompt = torch.zeros((len(rows), width), dtype=torch.bool)
    for i, (row, body) in enumerate(zip(rows, bodies, strict=True)):
        start = width - len(body) if left else 0
        ids[i, start : start + len(body)] = torch.tensor(body, dtype=torch.int64)
        tokens[i, start : start + len(body)] = True
        prompt[i, start : start + len(row.prompt)] = True
    positions = (tokens.cumsum(-1) - 1).clamp(min=0)
    moved = (to_device(t, device) for t in (ids, tokens.long(), positions, prompt, tokens))
    return Batch(*moved)
