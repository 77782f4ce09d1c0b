"""liger-kernel is asked for fused blocks, without its losses, on a GPU alone, and only for bases that it knows."""

import sys
from types import ModuleType

import pytest

from fed.base import gpu_kernels


@pytest.fixture
def asked(monkeypatch):
    """A liger-kernel that notes what it is asked for: the real one needs a GPU."""
    found: list[dict] = []
    package, patch = ModuleType("liger_kernel.transformers"), ModuleType("liger_kernel.transformers.monkey_patch")
    package._apply_liger_kernel_to_instance = lambda **given: found.append(given)  # type: ignore[attr-defined]
    patch.MODEL_TYPE_TO_APPLY_LIGER_FN = {"llama": None}  # type: ignore[attr-defined]
    for module in (ModuleType("liger_kernel"), package, patch):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("transformers.utils.is_liger_kernel_available", lambda: True)
    return found


def test_a_gpu_gets_fused_blocks_and_no_fused_loss(asked, tiny64):
    assert gpu_kernels.fused(tiny64.model, "cuda:0")
    assert asked == [{"model": tiny64.model, "cross_entropy": False, "fused_linear_cross_entropy": False}]


@pytest.mark.parametrize(("device", "kind"), [("cpu", "llama"), ("mps", "llama"), ("cuda", "unknown")])
def test_other_devices_and_unknown_bases_stay_as_they_are(asked, tiny64, monkeypatch, device, kind):
    monkeypatch.setattr(tiny64.model.config, "model_type", kind)
    assert not gpu_kernels.fused(tiny64.model, device) and asked == []


def test_without_liger_nothing_is_asked_for(tiny64):
    assert "liger_kernel" not in sys.modules and not gpu_kernels.fused(tiny64.model, "cuda")
