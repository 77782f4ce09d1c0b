"""What a safetensors file holds, read from its header alone, and whether the file is all there.

Layout: 8 bytes, the header's length N; N bytes of JSON {name: {dtype, shape, data_offsets}}; the tensors' bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fed.base.files.refusal import BaseModelError

POINTERS = (b"version https://git-lfs.github.com", b"/annex/objects/", b"../.git/annex/", b".git/annex/objects/")


def refuse_pointer(file: Path) -> None:
    """Raise BaseModelError where a file is a line that stands for the real one, or empty."""
    with file.open("rb") as opened:
        start = opened.read(64)
    if not start.strip():
        raise BaseModelError(f"base-model's files must have content, but {str(file)!r} is empty; fetch it again")
    if any(pointer in start for pointer in POINTERS):
        raise BaseModelError(
            f"base-model's files must be the files themselves, but {str(file)!r} is a pointer to one "
            f"({file.stat().st_size} bytes); fetch it with git lfs pull, or git annex get"
        )


def entries(file: Path) -> dict[str, dict[str, Any]]:
    """Name -> dtype, shape and data_offsets of each tensor of a file that is whole.

    Raises:
        BaseModelError: a pointer, no safetensors file, or one that ends before its last tensor does.
    """
    refuse_pointer(file)
    size = file.stat().st_size
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        text = opened.read(min(length, size))
    if size < 8 or length > max(size, 100 << 20):
        raise BaseModelError(f"base-model's weights must be safetensors, and {str(file)!r} is none")
    try:
        header = json.loads(text) if len(text) == length else {}
        tensors = {str(name): dict(entry) for name, entry in header.items() if name != "__metadata__"}
        end = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BaseModelError(f"base-model's weights must be safetensors, and {str(file)!r} is none") from error
    if size < max(end, 8 + length):
        raise BaseModelError(
            f"base-model's weights must be whole, but {str(file)!r} is cut short: {size:,} of {max(end, 8 + length):,} "
            f"bytes; fetch it again"
        )
    if not tensors:
        raise BaseModelError(f"base-model's weights must be whole, but {str(file)!r} holds no tensor; fetch it again")
    return tensors
