"""Freed memory goes back to the system. Each case needs a process of its own: the allocator is bounded for good."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Large blocks, each held apart from the next by a small one, freed with the small ones still there.
PROGRAM = """
import ctypes, sys
from fed.base import host_memory
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

if sys.argv[1] == "bounded":
    assert host_memory.bound()
c.free(c.malloc(16 << 20))  # raises the threshold for mapping a block by itself
before, large, small = resident(), [], []
for _ in range(20):
    large.append(c.malloc(8 << 20))
    ctypes.memset(large[-1], 1, 8 << 20)
    small.append(c.malloc(100_000))
held = resident() - before
for block in large:
    c.free(block)
print(held >> 20, (resident() - before) >> 20)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_blocks_go_back_to_the_system(monkeypatch):
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    found = {}
    for case in ("plain", "bounded"):
        done = subprocess.run([sys.executable, "-c", PROGRAM, case], capture_output=True, text=True, check=True)
        found[case] = [int(n) for n in done.stdout.split()]
    assert found["plain"][0] >= 150 and found["bounded"][0] >= 150
    assert found["plain"][1] > 100  # what the bound is for; fails where glibc has learnt better
    assert found["bounded"][1] < 20


REUSED = """
import ctypes, resource
from fed.base import host_memory
c = ctypes.CDLL(None)
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
assert host_memory.bound()

def faults(count, size):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        block = c.malloc(size)
        ctypes.memset(block, 1, size)
        c.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(faults(50, 4 << 20), faults(50, 16 << 20))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_blocks_of_a_steps_size_are_used_again_without_new_pages(monkeypatch):
    for name in ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX"):
        monkeypatch.delenv(name, raising=False)
    done = subprocess.run([sys.executable, "-c", REUSED], capture_output=True, text=True, check=True)
    small, large = (int(n) for n in done.stdout.split())
    assert small < 2 * (4 << 20) // 4096 < large  # one block's pages, or a block's each time (fewer if pages are huge)


def test_every_loaded_base_on_a_cpu_is_bounded(tiny_base):
    program = (
        "import sys; from fed.base import host_memory; from fed.base.model import load;"
        "load(sys.argv[1], device='cpu');"
        "print(host_memory.bound.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tiny_base)], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "1"
