"""What answers: rows to score or to continue, and under whose edits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fed.forward.batching import Row


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
    def losses(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> list[tuple[float, int]]:
        """(summed nll of the completion in nats, its tokens) of each question."""

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
