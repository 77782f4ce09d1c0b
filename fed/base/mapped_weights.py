"""A base model's weights on the host's disk in the dtype they are computed in, so that processes share their pages.

transformers keeps parameters as views of the memory-mapped file where the file already has the wanted dtype, and any
number of processes then share one copy in the page cache (a private mapping: a kernel that wrote into it would write
into a copy of its own). Where it has to convert, every process holds a copy of its own. So the weights are converted
once, tensor by tensor, into a folder of the cache, and loaded from there: the same numbers bit for bit.

The rule. A copy is made for the CPU alone, where all weights are safetensors, their dtype is another, the copy is of at
least 64 MiB, and the disk keeps as much free again: 0.54 GB for the embedded base in float32, 27 GB for 7 billion
parameters (13.5 GB in bf16). In any other case, a quantized base among them, transformers converts while it loads, as
ever. Nothing clears it: delete the cache folder's `weights`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fed.atomic_write import sync
from fed.base.files.cache import making
from fed.base.files.safetensors import entries
from fed.base.files.whole import weight_files

SMALLEST = 64 << 20  # bytes; a smaller copy is not worth a place in the cache
_ALIGNMENT = 64  # bytes; where the tensors begin in the file, as an allocator would have it
_CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
_CONFIGS = ("config.json", "generation_config.json", "model.safetensors.index.json")


def folder_in(folder: Path, dtype: torch.dtype, cache: Path) -> Path:
    """A folder to load the base model of `folder` from: a copy in `dtype` under `cache`, or `folder` itself.

    Made on first use, once a host however many processes ask for it, and by rename.
    """
    try:
        copied = cache / "weights" / f"{folder.resolve().name[:60]}-{_CODES[dtype]}-{_key(folder)}"
        if (copied / "config.json").is_file():
            return copied
        if not _pays(folder, dtype, cache):
            return folder
        with making(copied.parent):
            if not (copied / "config.json").is_file():
                _make(folder, copied, dtype)
    except (OSError, ValueError, KeyError, SafetensorError):  # no room, no right to write, an unknown layout
        return copied if (copied / "config.json").is_file() else folder  # a racer may have been first
    return copied


def _make(folder: Path, copied: Path, dtype: torch.dtype) -> None:
    building = Path(tempfile.mkdtemp(dir=copied.parent, prefix=".building-"))
    try:
        for file in weight_files(folder):
            _convert(file, building / file.name, dtype)
        for name in _CONFIGS:
            if (folder / name).is_file():
                shutil.copyfile(folder / name, building / name)
        building.chmod(0o755)
        building.rename(copied)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _key(folder: Path) -> str:
    """Changes with any weight file's or the configuration's path, size or time."""
    files = [folder.resolve() / "config.json", *weight_files(folder.resolve())]
    stats = [[str(file), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()[:16]


def _pays(folder: Path, dtype: torch.dtype, cache: Path) -> bool:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = weight_files(folder)
    if "quantization_config" in config or _keeps_float32(config):
        return False
    size, other = 0, False
    for file in files:
        for entry in entries(file).values():
            code = str(entry["dtype"])
            size += torch.Size(entry["shape"]).numel() * dtype.itemsize
            other |= code != _CODES[dtype]
            if code not in _CODES.values():  # packed or integer weights: a layout that is not ours to convert
                return False
    there = next(parent for parent in (cache, *cache.parents) if parent.is_dir())
    return other and size >= SMALLEST and shutil.disk_usage(there).free >= 2 * size


def _keeps_float32(config: dict[str, Any]) -> bool:
    """Whether transformers keeps some of this model's weights in float32 whatever is asked for."""
    import transformers

    kind = getattr(transformers, (config.get("architectures") or [""])[0], None)
    kept = ("_keep_in_fp32_modules", "_keep_in_fp32_modules_strict")
    return kind is None or any(getattr(kind, name, None) for name in kept)


def _convert(source: Path, target: Path, dtype: torch.dtype) -> None:
    """Write a safetensors file's tensors in another dtype, one after the other; what is in memory is one of them."""
    with safe_open(source, framework="pt") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
        sizes = {name: torch.Size(shape).numel() * dtype.itemsize for name, shape in shapes.items()}
        names = sorted(shapes, key=lambda name: (sizes[name] % _ALIGNMENT != 0, name))  # odd ones shift no others
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            start, end = end, end + sizes[name]
            header[name] = {"dtype": _CODES[dtype], "shape": shapes[name], "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        text = text.ljust(-(-(8 + len(text)) // _ALIGNMENT) * _ALIGNMENT - 8)
        with target.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name in names:
                file.write(_bytes(opened.get_tensor(name).to(dtype)))
            file.flush()
            sync(file.fileno())


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
