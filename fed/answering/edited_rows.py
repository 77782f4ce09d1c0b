"""A row and the edits that apply to it; how a batch of such rows is told to the hooks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from fed.base.model import BaseModel
from fed.edits.hooks import EditSession, Stage, edited
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.forward.batching import Row


@dataclass(frozen=True)
class EditedRow:
    """A row to read or to continue, and its edits.

    Attributes:
        collective: whether the stage-1 edit applies. personal: whose stage-2 edit follows, an index into
        the bank, or None for nobody's.
    """

    row: Row
    collective: bool = False
    personal: int | None = None


@contextmanager
def open_session(base: BaseModel, collective: EditBank | None, personal: EditBank | None) -> Iterator[EditSession]:
    stages = [Stage(bank) for bank in (collective, personal) if bank is not None]
    with edited(base.model, stages) as session:
        yield session


def positions_of(
    positions: Positions, personal_positions: Positions | None, collective: EditBank | None, personal: EditBank | None
) -> list[Positions]:
    """The positions of each stage that `open_session` opens."""
    own = personal_positions or positions
    return [p for p, bank in ((positions, collective), (own, personal)) if bank is not None]


def set_rows(
    session: EditSession,
    rows: Sequence[EditedRow],
    has_collective: bool,
    has_personal: bool,
    device: str,
) -> None:
    indices: list[Tensor | None] = []
    actives: list[Tensor | None] = []
    if has_collective:
        indices.append(None)
        actives.append(torch.tensor([row.collective for row in rows], device=device))
    elif any(row.collective for row in rows):
        raise ValueError("a row asks for the collective edit, but none is given")
    if has_personal:
        indices.append(torch.tensor([row.personal or 0 for row in rows], device=device))
        actives.append(torch.tensor([row.personal is not None for row in rows], device=device))
    elif any(row.personal is not None for row in rows):
        raise ValueError("a row asks for a personalized edit, but none are given")
    session.set_rows(indices, actives)
    session.gather()
