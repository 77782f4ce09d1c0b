"""A stack of edits: the layers that a row's hidden states pass through, one after the other (PerFit equation 2).

    Φ(h) = φ_n( … φ_2( φ_1(h) ) … )        φ_i: an edit of layer i's bank, at layer i's positions

Of each layer a row takes one edit or none: of PerFit's two the collective edit, then its user's own. What the decoder
itself is made of is called blocks here.

Shapes:  B rows · T tokens · L edited blocks · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256

import torch
from torch import Tensor, nn

from fed.edits.hooks import AttachedLayer, EditSession, edited
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions

Edits = tuple[int | None, ...]  # for each layer, the number of the edit that a row takes; () takes none of any layer


@dataclass(frozen=True)
class Layer:
    """Edits to choose from, and where in a row they apply.

    Promise: under a layer that is not shared, what a row becomes does not depend on how many edits the bank holds
    (`tests/fed/edits/test_stack.py: test_a_rows_losses_do_not_depend_on_how_many_edits_its_layer_holds`). That is why
    `shared` is said and not read off the bank: one shared edit and a copy for each row may round differently.

    Attributes:
        bank: the edits.
        positions: which tokens they touch.
        shared: the bank's one edit serves every row that takes it, without a copy for each.
    Raises:
        ValueError: a shared layer of more than one edit.
    """

    bank: EditBank
    positions: Positions
    shared: bool = False

    def __post_init__(self) -> None:
        if self.shared and self.bank.users != 1:
            raise ValueError(f"a shared layer has one edit, got a bank of {self.bank.users}; leave out shared=True")


class EditStack:
    """Layers in the order of composition, the first one's edits applied first; without a layer, the base itself."""

    def __init__(self, *layers: Layer) -> None:
        self.layers = layers

    @property
    def first_blocks(self) -> tuple[int, ...]:
        """The blocks where a layer's edits begin, from below: rows that differ in it alone are one up to there."""
        return tuple(sorted({min(layer.bank.shape.blocks) for layer in self.layers if layer.bank.shape.blocks}))

    def check(self, edits: Edits) -> None:
        """Raise ValueError for a row that names an edit which is not there, or that names not one of every layer."""
        layers = len(self.layers)
        if edits and len(edits) != layers:
            raise ValueError(f"a row names an edit or None for each layer of the stack, {layers} here, got {edits}")
        for place, (number, layer) in enumerate(zip(edits, self.layers, strict=False)):
            if number is not None and not 0 <= number < layer.bank.users:
                raise ValueError(
                    f"layer {place} of the stack has edits 0..{layer.bank.users - 1}, but a row takes number {number}"
                )

    def edits_below(self, edits: Edits, block: int) -> Edits:
        """What of a row's edits lies below a block's output: of a layer that begins there or later, None.

        Raises as `check` does.
        """
        self.check(edits)
        begun = [min(layer.bank.shape.blocks, default=block) < block for layer in self.layers]
        return tuple(number if b else None for number, b in zip(edits or (None,) * len(begun), begun, strict=True))

    def edits_block(self, block: int) -> bool:
        """Whether any layer edits a block's output."""
        return any(block in layer.bank.shape.blocks for layer in self.layers)

    @property
    def first_trained_block(self) -> int:
        """The lowest block that the last layer edits: what lies below its output, training leaves as it is."""
        return min(self.trained.bank.shape.blocks)

    def below(self, block: int) -> EditStack:
        """The same layers, with their edits of the blocks before `block` alone: what that block's output has passed."""
        return EditStack(*(replace(layer, bank=layer.bank.below(block)) for layer in self.layers))

    @property
    def trained(self) -> Layer:
        """The last layer, the one that training changes."""
        return self.layers[-1]

    @property
    def frozen(self) -> EditStack:
        """The layers before the last one."""
        return EditStack(*self.layers[:-1])

    def content(self, edits: Edits) -> bytes:
        """A digest of what these edits are and where they apply: equal for two rows only where their edits are.

        Layers whose edits are of no block count as absent.
        """
        digest = sha256()
        for layer, number in zip(self.layers, edits, strict=bool(edits)):
            if number is None or not layer.bank.shape.blocks:
                continue
            digest.update(f"{layer.positions} {layer.bank.shape} {layer.bank.R.dtype}".encode())
            for tensor in layer.bank.tensors(number).values():
                digest.update(tensor.cpu().numpy().tobytes())
        return digest.digest()

    def edits_of(self, user: int) -> Edits:
        """What the rows of user number `user` take in training: the edit of a shared layer, of any other its own."""
        return tuple(0 if layer.shared else user for layer in self.layers)

    def alone(self, user: int) -> EditStack:
        """The stack that this user would train without the others: copies of its edits, shared layers as they are."""
        return EditStack(
            *(
                layer
                if layer.shared
                else replace(layer, bank=EditBank.from_tensors(layer.bank.shape, [layer.bank.tensors(user)]))
                for layer in self.layers
            )
        )

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> EditStack:
        """A stack of detached copies elsewhere."""
        return EditStack(*(replace(layer, bank=layer.bank.to(dtype=dtype, device=device)) for layer in self.layers))

    @contextmanager
    def attached(self, model: nn.Module, *, first: int = 0) -> Iterator[AttachedStack]:
        """Edit the outputs of the model's decoder blocks while the context lasts, from block `first` on.

        Raises as `hooks.edited` does.
        """
        with edited(model, [AttachedLayer(layer.bank) for layer in self.layers], first=first) as session:
            yield AttachedStack(self, session)


BARE = EditStack()  # the base as it is


class AttachedStack:
    """A stack on a model, and what it is told before a forward pass: which edits the rows take, and where they apply.

    Made by `EditStack.attached`.
    """

    def __init__(self, stack: EditStack, session: EditSession) -> None:
        self._stack, self._session = stack, session

    def take(self, edits: Sequence[Edits]) -> None:
        """Choose each row's edits for the forward passes to come.

        Raises:
            ValueError: a row that names an edit which is not there, or that does not name one of every layer.
        """
        indices: list[Tensor | None] = []
        actives: list[Tensor | None] = []
        for row in edits:
            self._stack.check(row)
        for place, layer in enumerate(self._stack.layers):
            wanted = [row[place] if row else None for row in edits]
            device = layer.bank.R.device
            indices.append(None if layer.shared else torch.tensor([number or 0 for number in wanted], device=device))
            actives.append(torch.tensor([number is not None for number in wanted], device=device))
        self._session.set_rows(indices, actives)
        self._session.gather()

    def take_leaves(self, owners: Tensor) -> list[Tensor]:
        """Give each row a copy of its user's edits to train on; every layer then applies to every row.

        Args:
            owners: (B,) int64 on the banks' device, the user number of each row.
        Returns:
            the copies that the last layer now reads, R and W (B, L, r, d) and b (B, L, r), which take gradients.
        """
        copies = self._stack.trained.bank.picked(owners)
        leaves = [tensor.requires_grad_() for tensor in copies.parameters().values()]
        last = self._session.layers[-1]
        last.bank, last.each = copies, True
        frozen = [None if layer.shared else owners for layer in self._stack.frozen.layers]
        self._session.set_rows([*frozen, None], [None] * len(self._stack.layers))
        self._session.gather()
        return leaves

    def at(self, prompt: Tensor, tokens: Tensor) -> None:
        """Apply every layer at its positions in the coming forward pass.

        Args:
            prompt: (B, T) bool, true on the prompt's tokens.
            tokens: (B, T) bool, true on all real tokens.
        """
        self.at_masks([layer.positions.mask(prompt, tokens) for layer in self._stack.layers])

    def at_generated(self, rows: int) -> None:
        """The same where each of so many rows reads one token that it generated: a token of the completion."""
        self.at_masks(
            [
                torch.full((rows, 1), layer.positions.generated, device=layer.bank.R.device)
                for layer in self._stack.layers
            ]
        )

    def at_masks(self, masks: Sequence[Tensor]) -> None:
        """Apply each layer where its own mask, (B, T) bool, is true."""
        self._session.set_masks(masks)
