"""What answers: rows to score or to continue, and under whose edits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fed.forward.batching import Row


class Loss(NamedTuple):
    """What a row's completion costs.

    Attributes:
        nll: summed negative log-likelihood of its tokens in nats, EOS (whichever ends a text) included.
        tokens: how many, EOS included.
        nll_eos: that of the EOS token at its end alone.
        eos_tokens: 1, or 0 where the completion has no EOS; `nll_eos` is 0 then.
    """

    nll: float
    tokens: int
    nll_eos: float
    eos_tokens: int

    @classmethod
    def of(cls, nll: float, last: float, completion: Sequence[int], ends: Collection[int]) -> Loss:
        """From the sum, the last token's part of it, the completion, and which tokens end a text."""
        ended = bool(completion) and completion[-1] in ends
        return cls(nll, len(completion), last if ended else 0.0, int(ended))


@dataclass(frozen=True)
class Question:
    """A row to score or continue. personal: whose private tensors apply, None for nobody's."""

    row: Row
    collective: bool
    personal: str | None
    seed_name: tuple[str, ...] = ()


class Reader(ABC):
    """Scores and continues rows under the edits that each row asks for."""

    @abstractmethod
    def losses(self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None) -> list[Loss]:
        """What the completion of each question costs."""

    @abstractmethod
    def generate(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int,
        stop: str | None,
        on_rows: Callable[[int], None] | None = None,
    ) -> list[str]:
        """The text that continues each question's prompt."""
