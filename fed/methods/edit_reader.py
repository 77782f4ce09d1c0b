"""Answers under edits of hidden states: a collective one, users' own, both, or none; rows of all arms share batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from fed.answering.decoding import static_steps
from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.reader import Loss, Question, Reader
from fed.answering.scoring import losses
from fed.base.device import DTYPES
from fed.base.model import BaseModel
from fed.edits.stack import Edits, EditStack, Layer
from fed.forward.budget import Budget, decoded
from fed.methods.method import Method

T = TypeVar("T")
# What is asked about rows, each the row of the question at its place: their losses, or their texts.
Answer = Callable[[Sequence[EditedRow], Sequence[Question]], list[T]]


class EditReader(Reader):
    """What a method answers with; without any layer, the base itself."""

    def __init__(
        self,
        method: Method,
        base: BaseModel,
        *,
        collective: Layer | None = None,
        personal: Layer | None = None,
        names: Sequence[str] = (),
        replaces: bool = False,
    ) -> None:
        """Put the layers in the order of composition, the collective one first.

        Args:
            method: whose settings say how to decode and how much a forward pass may take.
            collective: the edit that questions may share.
            personal: the edits of the users `names`, in that order.
            replaces: a user's edit takes the place of the collective one instead of following it.
        """
        self.method, self.base = method, base
        self._layers, self._replaces = (collective, personal), replaces
        self._number = {name: number for number, name in enumerate(names)}
        self._stack = on_base(EditStack(*(layer for layer in self._layers if layer is not None)), base)

    def losses(self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None) -> list[Loss]:
        s = self.method.settings
        budget = Budget(2 * s.token_budget, s.activation_cache << 20)
        return self.answered(
            questions, lambda rows, _: losses(self.base, rows, self._stack, budget=budget, on_rows=on_rows)
        )

    def generate(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int,
        stop: str | None,
        on_rows: Callable[[int], None] | None = None,
    ) -> list[str]:
        s = self.method.settings
        static = static_steps.wanted(self.base)
        decoding = Decoding(max_new_tokens, s.temperature, s.top_k, s.top_p, static)

        def texts(rows: Sequence[EditedRow], asked: Sequence[Question]) -> list[str]:
            return generate(
                self.base,
                rows,
                self._stack,
                decoding,
                generators=self.method.draws(asked),
                token_budget=decoded(self.base, s.token_budget),
                stop=stop,
                on_rows=on_rows,
            )

        return self.answered(questions, texts)

    def answered(self, questions: Sequence[Question], answer: Answer[T]) -> list[T]:
        """The answers to all questions, in order; here all at once, under the stack."""
        return answer([EditedRow(question.row, self._edits(question)) for question in questions], questions)

    def _edits(self, question: Question) -> Edits:
        """Which edit of each layer a question's row takes."""
        private = None if question.personal is None else self._number[question.personal]
        shared = question.collective and not (self._replaces and private is not None)
        wanted = (("the collective edit", 0 if shared else None), ("a user's own edit", private))
        edits = []
        for layer, (what, number) in zip(self._layers, wanted, strict=True):
            if layer is not None:
                edits.append(number)
            elif number is not None:
                raise ValueError(f"a question asks for {what}, but none is given")
        return tuple(edits)


def on_base(stack: EditStack, base: BaseModel) -> EditStack:
    """The stack on the base's device; float32 whatever the base computes in, float64 under a float64 base."""
    wide = DTYPES[base.dtype] if base.dtype == "float64" else torch.float32
    return stack.to(device=base.device, dtype=wide)
