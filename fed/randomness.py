"""One random generator a name: (seed, purpose, round, user) alone decides what is drawn, whoever draws beside."""

from __future__ import annotations

import hashlib

import torch


def generator(seed: int, *names: object) -> torch.Generator:
    """A generator that depends on the seed and the names alone, the same on every machine."""
    digest = hashlib.sha256(repr((seed, *(str(name) for name in names))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
