"""Answers under edits of hidden states: a collective one, users' own, both, or none; rows of all arms share batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from fed.answering.decoding import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.reader import Question, Reader
from fed.answering.scoring import losses
from fed.base.device import DTYPES
from fed.base.model import BaseModel
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.methods.method import Method


class EditReader(Reader):
    """What a method of edits answers with; without any edit, the base itself.

    Args:
        collective, at: the edit that questions may share, and where it applies. names, personal, personal_at: the
        users that the bank `personal` has edits of, in its order, and where these apply. replaces: whether a user's
        edit takes the place of the collective one instead of following it.
    """

    def __init__(
        self,
        method: Method,
        base: BaseModel,
        *,
        collective: EditBank | None = None,
        at: Positions | None = None,
        names: Sequence[str] = (),
        personal: EditBank | None = None,
        personal_at: Positions | None = None,
        replaces: bool = False,
    ) -> None:
        self._method, self._base, self._replaces = method, base, replaces
        self._collective, self._personal = (
            None if bank is None else on_base(bank, base) for bank in (collective, personal)
        )
        self._at = at or Positions.parse("all")
        self._personal_at = personal_at
        self._index = {name: i for i, name in enumerate(names)}

    def _rows(self, questions: Sequence[Question]) -> list[EditedRow]:
        return [
            EditedRow(
                q.row,
                q.collective and not (self._replaces and q.personal is not None),
                None if q.personal is None else self._index[q.personal],
            )
            for q in questions
        ]

    def losses(
        self, questions: Sequence[Question], on_rows: Callable[[int], None] | None = None
    ) -> list[tuple[float, int]]:
        return losses(
            self._base,
            self._rows(questions),
            self._at,
            collective=self._collective,
            personal=self._personal,
            personal_positions=self._personal_at,
            token_budget=2 * self._method.settings.token_budget,
            activation_cache=self._method.settings.activation_cache << 20,
            on_rows=on_rows,
        )

    def generate(
        self,
        questions: Sequence[Question],
        *,
        max_new_tokens: int,
        stop: str | None,
        on_rows: Callable[[int], None] | None = None,
    ) -> list[str]:
        s = self._method.settings
        return generate(
            self._base,
            self._rows(questions),
            Decoding(max_new_tokens, s.temperature, s.top_k, s.top_p),
            self._at,
            collective=self._collective,
            personal=self._personal,
            personal_positions=self._personal_at,
            generators=self._method.draws(questions),
            token_budget=4 * s.token_budget,
            stop=stop,
            on_rows=on_rows,
        )


def on_base(bank: EditBank, base: BaseModel) -> EditBank:
    """The bank on the base's device; float32 whatever the base computes in, float64 under a float64 base."""
    wide = DTYPES[base.dtype] if base.dtype == "float64" else torch.float32
    return bank.to(device=base.device, dtype=wide)
