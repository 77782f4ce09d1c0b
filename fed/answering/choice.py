"""Answers by constrained choice: of a task's labels, the one that the model finds likeliest after the prompt.

    score(label) = Σ_t log p(token_t | prompt, tokens before t),   over the label's tokens and the end of the sequence

The sum is the log-probability that exactly this answer is given, for the end of the sequence belongs to it: no label is
favoured for being another's beginning. It is not divided by the number of tokens: labels are whole answers that exclude
each other, so the sums compare as they are, while a mean would favour long labels whose later tokens follow from
their first ("based on a book"). A label's tokens and its end are those that training saw
(`fed.forward.tokenization`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fed.forward.batching import Row, tokenize
from fed.forward.tokenization import before_text
from fed.lamp.tasks import Task


@dataclass(frozen=True)
class Choice:
    """A task's labels and their tokens, in the task's order.

    Attributes:
        max_length: tokens of a row, prompt and label.
        head: what stands before every text, BOS or nothing; no cut takes it.
    """

    labels: tuple[str, ...]
    tokens: tuple[tuple[int, ...], ...]
    max_length: int
    head: tuple[int, ...] = ()

    @classmethod
    def of(cls, task: Task, tokenizer: Any, max_length: int, prompt_format: str = "plain") -> Choice:
        """The task's labels for a tokenizer, as they follow a prompt in this format.

        Raises:
            ValueError: the task has none, or the tokenizer cannot write one of them, or max-length is too short.
        """
        if not task.labels:
            raise ValueError(f"answer='choice' needs a task with labels, got {task.name}; use 'decode'")
        pairs = [(f"{task.cue}:", f" {label}") for label in task.labels]
        rows = tokenize(pairs, tokenizer, max_length, prompt_format=prompt_format)
        for label, row in zip(task.labels, rows, strict=True):
            text = tokenizer.decode(list(row.completion[:-1]))
            if text.strip() != label:
                raise ValueError(
                    f"every label of {task.name} must be writable in this base model's tokens and max-length = "
                    f"{max_length}, but {label!r} becomes {text.strip()!r}; raise max-length or use answer='decode'"
                )
        return cls(task.labels, tuple(row.completion for row in rows), max_length, before_text(tokenizer))

    @property
    def longest(self) -> int:
        """Tokens of the longest label, its end among them."""
        return max(map(len, self.tokens))

    def rows(self, prompt: Sequence[int]) -> list[Row]:
        """One row per label. All have one prompt, cut at its start so that the longest label fits behind it."""
        head = self.head if tuple(prompt[: len(self.head)]) == self.head else ()
        kept = (*head, *prompt[len(head) :][len(head) - self.max_length + self.longest :])
        return [Row(kept, tokens) for tokens in self.tokens]

    def best(self, losses: Sequence[float]) -> str:
        """The label of the smallest summed nll, the first of equals; no answer where one is not finite."""
        if not all(map(math.isfinite, losses)):
            return ""
        return self.labels[min(range(len(losses)), key=losses.__getitem__)]
