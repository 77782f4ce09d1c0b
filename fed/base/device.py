"""On which device and in which dtype a base model computes."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path

import torch

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


class DeviceError(ValueError):
    """A device that is not there, or a dtype that it cannot compute in."""


def check(device: str, dtype: str) -> None:
    """Raise DeviceError where `device` is not here, or cannot compute in `dtype`; a run elsewhere is not asked.

    A run on an existing Ray cluster (RAY_ADDRESS) computes on whatever that has.
    """
    if "RAY_ADDRESS" not in os.environ:
        choose_dtype(dtype, choose_device(device))


def choose_device(wanted: str = "auto") -> str:
    """The GPU or other accelerator that torch sees, by torch's own name, else `cpu`; or `wanted`, where it is there.

    Raises:
        DeviceError: no such device here.
    """
    if wanted != "auto":
        return _there(wanted)
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    if (other := torch.accelerator.current_accelerator(check_available=True)) is not None:
        return str(other.type)  # xpu, npu, hpu, …
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "" and Path("/dev/nvidia0").exists():
        # Ray hides the GPU from actors that asked for none (client-resources-num-gpus=0).
        print(
            "warning: a GPU is present but hidden from this process, so it computes on the CPU; "
            "give clients a share of it with --federation-config 'client-resources-num-gpus=1'",
            file=sys.stderr,
        )
    return "cpu"


def choose_dtype(wanted: str = "auto", device: str = "cpu") -> str:
    """The dtype that the device multiplies fastest: bf16 on GPUs and on CPUs with bf16 instructions, else float32.

    Without AMX or AVX512-BF16 a CPU emulates bf16 products, several times slower than float32.

    Raises:
        DeviceError: an unknown dtype, or float64 on a device that has none.
    """
    if wanted != "auto":
        if wanted not in DTYPES:
            raise DeviceError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {wanted!r}")
        if wanted == "float64" and not has_float64(device):
            raise DeviceError(f"dtype must be float32 or narrower on {device!r}, which has no float64; got {wanted!r}")
        return wanted
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if device.startswith("xpu"):
        return "bfloat16"
    if device == "cpu":
        try:
            flags = Path("/proc/cpuinfo").read_text()
        except OSError:
            flags = ""
        if "amx_bf16" in flags or "avx512_bf16" in flags or " bf16" in flags:
            return "bfloat16"
    return "float32"


@lru_cache(maxsize=8)
def has_float64(device: str) -> bool:
    """Whether a device computes in float64: MPS never does, some of Intel's GPUs do not."""
    kind = torch.device(device).type
    if kind == "xpu":
        return bool(torch.xpu.get_device_properties(device).has_fp64)
    return kind != "mps"


def _there(wanted: str) -> str:
    """`wanted`, a device that torch knows and sees. Raises DeviceError."""
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise DeviceError(
            f"device must be auto, or one by torch's name (cpu, cuda:1, mps, xpu), got {wanted!r}"
        ) from error
    if device.type == "cpu":
        return wanted
    module = getattr(torch, device.type, None)
    seen = module.device_count() if module is not None and module.is_available() else 0
    if not seen or (device.index or 0) >= seen:
        has = f"{seen} of {device.type}" if seen else f"no {device.type}"
        raise DeviceError(
            f"device must be there, got {wanted!r}, and torch {torch.__version__} sees {has} here; use auto"
        )
    return wanted
