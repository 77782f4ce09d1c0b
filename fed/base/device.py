"""On which device and in which dtype a base model computes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def choose_device(wanted: str = "auto") -> str:
    """`cuda` or `mps` where there is one, else `cpu`; anything but `auto` is taken as given."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
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
    """
    if wanted != "auto":
        if wanted not in DTYPES:
            raise ValueError(f"dtype must be auto or one of {', '.join(DTYPES)}, got {wanted!r}")
        return wanted
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    if device == "cpu":
        try:
            flags = Path("/proc/cpuinfo").read_text()
        except OSError:
            flags = ""
        if "amx_bf16" in flags or "avx512_bf16" in flags or " bf16" in flags:
            return "bfloat16"
    return "float32"
