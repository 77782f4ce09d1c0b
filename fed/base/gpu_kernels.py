"""liger-kernel's fused norms, rotary embeddings and gated MLPs on a GPU, where it is installed and knows the base.

Its losses are left out: ours takes logits at completion tokens alone (`fed.forward.completion_loss`). Deliberately no
dependency: it needs Triton. PERFIT_FUSED=0 in the environment leaves them out, to compare with. Not yet run on a GPU
by this project.
"""

from __future__ import annotations

import os
from typing import Any


def fused(model: Any, device: str) -> bool:
    """Put the fused kernels into a model on a GPU; whether that was done. A base that liger does not know stays."""
    if not device.startswith("cuda") or os.environ.get("PERFIT_FUSED") == "0":
        return False
    from transformers.utils import is_liger_kernel_available

    if not is_liger_kernel_available():
        return False
    from liger_kernel.transformers import _apply_liger_kernel_to_instance
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if model.config.model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        return False
    _apply_liger_kernel_to_instance(model=model, cross_entropy=False, fused_linear_cross_entropy=False)
    return True


def are_in(model: Any) -> bool:
    """Whether a model computes with them."""
    return any(
        "liger_kernel" in str(getattr(vars(module).get("forward"), "__module__", "")) for module in model.modules()
    )
