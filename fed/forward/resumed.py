"""Forward passes that begin at a block's output, whose states are handed in: what lies below is not computed.

Shapes:  B rows · T tokens · d hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from fed.base.model import BaseModel
from fed.edits.hooks import decoder_blocks
from fed.edits.stack import AttachedStack, EditStack


class _Given(nn.Module):
    """Stands in for a frozen block: passes the hidden states on, or gives those that were handed in."""

    def __init__(self, block: nn.Module, state: Callable[[], Tensor] | None = None) -> None:
        super().__init__()
        self.__dict__["_block"], self._state = block, state  # not a submodule: the block stays where it was

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_block"], name)  # such as `attention_type`, which a model's loop asks for

    def forward(self, hidden: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden if self._state is None else self._state()


@contextmanager
def resumed(model: nn.Module, first: int) -> Iterator[Callable[[Tensor], None]]:
    """Start forward passes at the output of block `first`. Enter it before `fed.edits.hooks.edited`.

    Yields a function that takes that output, (B, T, d), for the next forward pass.
    """
    blocks = decoder_blocks(model)
    replaced = list(blocks[: first + 1])
    given: list[Tensor] = []

    def give(states: Tensor) -> None:
        given[:] = [states]

    try:
        for i, block in enumerate(replaced):
            blocks[i] = _Given(block, (lambda: given[0]) if i == first else None)
        yield give
    finally:
        for i, block in enumerate(replaced):
            blocks[i] = block


def stacked(states: Sequence[Tensor]) -> Tensor:
    """Rows' states padded on the right with zeros, (B, T, d): padding that no token attends to."""
    return nn.utils.rnn.pad_sequence(list(states), batch_first=True)


@contextmanager
def passes(
    base: BaseModel, stack: EditStack, block: int | None
) -> Iterator[tuple[AttachedStack, Callable[[Tensor], None] | None]]:
    """Forward passes under a stack, from a block's output on (None: from the embeddings) while the context lasts.

    Yields the attached stack, and what takes the states for the next pass; None where it begins at the embeddings.
    """
    with (
        nullcontext() if block is None else resumed(base.model, block) as give,
        stack.attached(base.model, first=block or 0) as attached,
    ):
        yield attached, give
