"""The Stiefel manifold: matrices R (r, d) with orthonormal rows, R Rᵀ = I.

LoReFT edits live on it (PerFit equation 1 asks R_s R_sᵀ = I). An optimizer step leaves it; a retraction leads back.
Every function works on the last two dimensions and batches over the rest.

Shapes:  ... any batch · r rank · d hidden size, r <= d
"""

from __future__ import annotations

import torch
from torch import Tensor


def qr_retraction(R: Tensor) -> Tensor:
    """A nearby point, by Gram-Schmidt: the Q of Rᵀ = Q T with a positive diagonal of T, transposed.

    The sign convention makes the map continuous: a row that is already orthonormal stays where it is.

    Args:
        R: (..., r, d), rows linearly independent.
    Returns:
        (..., r, d) with orthonormal rows, same dtype and device.
    """
    if R.device.type == "mps":  # whose LAPACK is the host's
        return qr_retraction(R.cpu()).to(R.device)
    Q, T = torch.linalg.qr(R.mT)
    signs = torch.sign(torch.diagonal(T, dim1=-2, dim2=-1))
    signs = torch.where(signs == 0, torch.ones_like(signs), signs)
    return (Q * signs.unsqueeze(-2)).mT.contiguous()


def polar_factor(R: Tensor) -> tuple[Tensor, Tensor]:
    """The closest orthonormal rows in the Frobenius norm: U Vᵀ of the thin SVD R = U S Vᵀ.

    Args:
        R: (..., r, d).
    Returns:
        (factor (..., r, d), singular values (..., r)). A singular value far below 1 means that the rows
        that were averaged point in different directions there: the factor is then ill-determined.
    """
    U, S, Vh = torch.linalg.svd(R, full_matrices=False)
    return U @ Vh, S


def procrustes(R: Tensor, target: Tensor) -> Tensor:
    """The orthogonal Q (r, r) that minimises |Q R − target|_F (Schönemann 1966).

    (QR, QW, Qb) is the same edit as (R, W, b), so aligning changes nothing but the coordinates.

    Args:
        R, target: (..., r, d).
    Returns:
        (..., r, r), orthogonal.
    """
    U, _, Vh = torch.linalg.svd(target @ R.mT)
    return U @ Vh


def random_rows(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform (Haar) random orthonormal rows, float32 on the CPU, from `generator` alone.

    Args:
        shape: (..., r, d).
    """
    return qr_retraction(torch.randn(shape, generator=generator, dtype=torch.float32))


def orthogonality_error(R: Tensor) -> float:
    """max |R Rᵀ − I| over the batch: 0 on the manifold."""
    eye = torch.eye(R.shape[-2], dtype=R.dtype, device=R.device)
    return float((R @ R.mT - eye).abs().max())
