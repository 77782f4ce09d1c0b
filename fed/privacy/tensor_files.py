"""Tensors in files: encoded, written durably by rename, read back checked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fed.atomic_write import beside, raise_naming, sync, sync_folder
from fed.privacy.wipe import overwrite, wipe


class VaultError(ValueError):
    """A vault entry is missing, damaged, or belongs to another base model or collective edit."""


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits over names, shapes and values of float32 tensors."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def save_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write a safetensors file atomically, mode 0600."""
    write_file(path, encode(tensors, header))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, header). Raises VaultError where the file is missing or damaged."""
    return decode(read_file(path), path)


def encode(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bytes:
    return bytes(save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, dict(header)))


def decode(body: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        tensors = load(body)
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as error:
        raise VaultError(f"{str(path)!r} is damaged: {error}") from error
    return dict(tensors), dict(header)


def read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise VaultError(f"there must be a file at {str(path)!r}, and there is none") from error


def write_file(path: Path, body: bytes, *, private: bool = False) -> None:
    """Write a file by rename, mode 0600; private: overwrite the version that it replaces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = beside(path)
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            sync(file.fileno())
        replaces = private and path.is_file() and not path.is_symlink()
        before = os.open(path, os.O_WRONLY | os.O_NOFOLLOW) if replaces else None
        try:
            os.replace(building, path)
            sync_folder(path.parent)
            if before is not None:
                overwrite(before)
        finally:
            if before is not None:
                os.close(before)
    except BaseException as problem:
        with suppress(OSError):
            wipe(building)
        building.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            raise_naming(problem, path, building)
        raise
