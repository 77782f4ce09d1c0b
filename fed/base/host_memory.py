"""glibc's allocator and oneDNN's cache of kernels, bounded, so that a process that computes batches of ever new shapes
gives freed memory back instead of keeping the largest of each.

glibc raises its threshold for mapping a block by itself with every such block that is freed, up to 32 MiB; later
blocks then lie in heaps, one for each thread, which shrink only from their ends. Measured in sims/LOG.md.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import lru_cache

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # malloc.h
# Bytes. A larger block is mapped, and unmapped when it is freed: the system clears its pages each time, so most of a
# training step's tensors, of some megabytes, should be smaller. So much of a heap's end is kept for the next ones.
_BLOCK, _KEPT = 8 << 20, 64 << 20


@lru_cache(maxsize=1)
def bound() -> bool:
    """Bound both for this process, once; False where the C library is another. The environment's own settings win."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "16")  # read when oneDNN computes first; 1,024 ordinarily
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    chosen = (
        ("MALLOC_MMAP_THRESHOLD_", _MMAP_THRESHOLD, _BLOCK),
        ("MALLOC_TRIM_THRESHOLD_", _TRIM_THRESHOLD, _KEPT),
        ("MALLOC_ARENA_MAX", _ARENA_MAX, 2),
    )
    return all([mallopt(parameter, value) for name, parameter, value in chosen if name not in os.environ])
