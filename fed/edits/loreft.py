"""LoReFT edits of hidden states, and a bank of many users' edits stacked (PerFit equations 1 and 2).

    LoReFT:   φ(h) = h + Rᵀ (W h + b − R h)          R R^T = I
    PerFit:   Φ(h) = φ_2( φ_1(h) )                   collective edit first, then the personalized one

W − R is formed before it meets h: at initialisation W = R and b = 0, so the edit adds an exact zero and an
untrained edit changes nothing. Deliberately absent: pyreft's dropout, which hits the whole hidden state.

Shapes:  U users · L edited blocks · r rank · d hidden size · B rows · T tokens
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fed.base.device import has_float64
from fed.edits import stiefel


def loreft(h: Tensor, R: Tensor, W: Tensor, b: Tensor, mask: Tensor | None = None) -> Tensor:
    """h + Rᵀ(W h + b − R h), computed in the edit's dtype and added in that of h.

    Args:
        h: (B, T, d) hidden states.
        R, W: (r, d) shared by all rows, or (B, r, d), one edit per row. b: (r,) or (B, r).
        mask: (B, T) bool, True where the edit applies; None is everywhere.
    Returns:
        (B, T, d), dtype of h. Positions outside the mask are equal to h.
    """
    # In float64 until it is spread over the tokens: the gradient of b is then a sum over them that padding cannot round
    # another way, and a user's training does not depend on whose rows share its batches.
    if has_float64(str(b.device)):
        spread = b.double().unsqueeze(-2).expand(*b.shape[:-1], h.shape[-2], b.shape[-1])
    else:
        spread = _Spread.apply(b, h.shape[-2])
    z = h.to(R.dtype) @ (W - R).mT + spread.to(R.dtype)
    if mask is not None:
        z = z * mask.unsqueeze(-1).to(z.dtype)
    return h + (z @ R).to(h.dtype)


class _Spread(torch.autograd.Function):
    """b over the tokens, on a device without float64: the gradient is summed in float64 on the host.

    Shapes:  b (..., r)  ->  (..., T, r)
    """

    @staticmethod
    def forward(ctx: Any, b: Tensor, tokens: int) -> Tensor:
        return b.unsqueeze(-2).expand(*b.shape[:-1], tokens, b.shape[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient.cpu().double().sum(-2).to(gradient.dtype).to(gradient.device), None


def in_coordinates(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An edit's R, D = W − R and b, in which small changes are small numbers; other tensors as they are; float64."""
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    return {"R": wide["R"], "D": wide["W"] - wide["R"], "b": wide["b"]} if {"R", "W"} <= wide.keys() else wide


@dataclass(frozen=True)
class EditShape:
    """What an edit looks like: which decoder blocks, what rank, what hidden size."""

    blocks: tuple[int, ...]
    rank: int
    hidden_size: int

    @property
    def parameters(self) -> int:
        """Trainable numbers of one user's edit: per block R and W (r·d each) and b (r)."""
        return len(self.blocks) * (2 * self.rank * self.hidden_size + self.rank)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of one edit's tensors, in the order they are packed for the wire."""
        L, r, d = len(self.blocks), self.rank, self.hidden_size
        return {"R": (L, r, d), "W": (L, r, d), "b": (L, r)}


class EditBank:
    """The edits of U users, stacked: R and W (U, L, r, d), b (U, L, r), float32 (float64 in tests).

    All users train together because each one's numbers are a slice along the first dimension; the
    frozen base model under them is one and the same.
    """

    def __init__(self, shape: EditShape, R: Tensor, W: Tensor, b: Tensor) -> None:
        users = R.shape[0]
        for name, tensor in (("R", R), ("W", W), ("b", b)):
            expected = (users, *shape.tensors()[name])
            if tuple(tensor.shape) != expected:
                raise ValueError(f"edit tensor {name} must have shape {expected}, got {tuple(tensor.shape)}")
        self.shape = shape
        self.R, self.W, self.b = R, W, b

    @classmethod
    def identity(cls, shape: EditShape, generators: Sequence[torch.Generator]) -> EditBank:
        """One untrained edit per generator: R random orthonormal, W = R, b = 0 (changes nothing)."""
        size = shape.tensors()
        R = torch.stack([stiefel.random_rows(size["R"], g) for g in generators])
        return cls(shape, R, R.clone(), torch.zeros(len(generators), *size["b"]))

    @classmethod
    def from_tensors(cls, shape: EditShape, edits: Sequence[Mapping[str, Tensor]]) -> EditBank:
        """Stack single edits ({"R", "W", "b"}) into a bank, in the given order."""
        return cls(shape, *(torch.stack([edit[name] for edit in edits]) for name in ("R", "W", "b")))

    @property
    def users(self) -> int:
        return self.R.shape[0]

    def parameters(self) -> dict[str, Tensor]:
        """The trainable tensors, each with the users along dimension 0."""
        return {"R": self.R, "W": self.W, "b": self.b}

    def tensors(self, user: int) -> dict[str, Tensor]:
        """Copies of one user's R (L, r, d), W (L, r, d) and b (L, r), detached."""
        return {name: tensor[user].detach().clone() for name, tensor in self.parameters().items()}

    def to(self, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> EditBank:
        """A bank of detached copies elsewhere."""
        moved = (t.detach().to(device=device, dtype=dtype, copy=True) for t in (self.R, self.W, self.b))
        return EditBank(self.shape, *moved)

    def picked(self, index: Tensor) -> EditBank:
        """A bank of detached copies, one edit for each entry of index ((B,) int64)."""
        return EditBank(self.shape, *(t.detach().index_select(0, index) for t in (self.R, self.W, self.b)))

    def below(self, block: int) -> EditBank:
        """The edits of the decoder blocks before `block` alone, of every user; a bank of none where there are none."""
        places = [place for place, edited in enumerate(self.shape.blocks) if edited < block]
        shape = replace(self.shape, blocks=tuple(self.shape.blocks[place] for place in places))
        return EditBank(shape, *(tensor.detach()[:, places] for tensor in (self.R, self.W, self.b)))

    @torch.no_grad()
    def retract_(self, users: Tensor, rows: int | None = None) -> None:
        """Bring the R of these users ((A,) int64) back to the Stiefel manifold, in place, after their step.

        Args:
            rows: each block's first rows alone, among themselves; None: all.
        """
        self.R[users, :, :rows] = stiefel.qr_retraction(self.R[users, :, :rows])

    def rows(self, index: Tensor | None) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per edited block, the (R, W, b) of each row of a batch.

        Args:
            index: (B,) int64, which user's edit each row takes; None when the bank has one user, whose
                edit all rows then share without a copy.
        """
        if index is not None:
            return EditBank(self.shape, *(t.index_select(0, index) for t in (self.R, self.W, self.b))).each()
        if self.users != 1:
            raise ValueError(f"a bank of {self.users} users needs one user index per row")
        return [(R, W, b) for R, W, b in zip(self.R[0], self.W[0], self.b[0], strict=True)]

    def each(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Per edited block, the (R, W, b) of a batch whose row i takes edit i of the bank."""
        return list(zip(self.R.unbind(1), self.W.unbind(1), self.b.unbind(1), strict=True))
