"""liger-kernel's fused norms, rotary embeddings and gated MLPs on a GPU, where it is installed and knows the base.

Its losses are left out: ours takes logits at completion tokens alone (`fed.forward.completion_loss`). Deliberately no
dependency: it needs Triton. Not yet run on a GPU by this project.
"""

from __future__ import annotations

from typing import Any


def fused(model: Any, device: str) -> bool:
    """Put the fused kernels into a model on a GPU; whether that was done. A base that liger does not know stays."""
    if not device.startswith("cuda"):
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
