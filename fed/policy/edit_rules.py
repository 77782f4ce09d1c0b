"""Whether collective tensors are what they are said to be, before they meet a user's texts.

A server chooses the collective edit. One with a huge b in the last block chooses the distribution of tokens itself,
and a loss under it spells the text out (`tests/integration/test_extraction.py`). A trained edit is nothing like that:

    finite;   |R R^T - I| <= orthonormal;   |W - R|_2 <= shift;   |b| <= bias N_l         (fed.policy.hidden_norms)

Then an edit changes a state of the base's own size N_l by at most (shift + bias) N_l, in its r directions of d alone.

Shapes:  L edited layers · r rank · d hidden size
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from fed.policy.policy import Policy, PolicyError


def check_edit(policy: Policy, tensors: Mapping[str, Tensor], layers: Sequence[int], norms: Sequence[float]) -> None:
    """Raises PolicyError unless the tensors are an edit within the device's bounds.

    Args:
        tensors: R (L, r, d), W (L, r, d) and b (L, r); of another method any tensors, whose entries alone are bounded.
        layers: the L blocks that they edit.
        norms: the base's hidden-state norms, block by block.
    """
    if policy.open:
        return
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise PolicyError("a collective edit must be finite")
    if set(tensors) != {"R", "W", "b"}:
        largest = max((float(tensor.abs().max()) for tensor in tensors.values() if tensor.numel()), default=0.0)
        if largest > policy.entry:
            raise PolicyError(f"a collective tensor's entries must be at most {policy.entry:g}", f"{largest:g}")
        return
    R, W, b = (tensors[name].double() for name in ("R", "W", "b"))
    gap = float((R @ R.mT - torch.eye(R.shape[-2], dtype=R.dtype)).abs().max())
    if gap > policy.orthonormal:
        raise PolicyError(f"a collective edit's R must be orthonormal within {policy.orthonormal:g}", f"{gap:g}")
    shift = float(torch.linalg.matrix_norm(W - R, 2).max())
    if shift > policy.shift:
        raise PolicyError(f"a collective edit's |W - R| must be at most {policy.shift:g}", f"{shift:g}")
    own = torch.tensor([norms[layer] for layer in layers], dtype=b.dtype)
    bias = float((b.norm(dim=-1) / own).max())
    if bias > policy.bias:
        raise PolicyError(
            f"a collective edit's |b| must be at most {policy.bias:g} of the base's hidden-state norm", f"{bias:g}"
        )
