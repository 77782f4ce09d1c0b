"""Tensors in files: encoded, written durably by rename, read back checked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fed.atomic_write import beside, raise_naming, sync_folders, sync_together
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
    with WrittenTogether(private=private) as together:
        together.add(path, body)
        for problem in together.finish().values():
            raise problem


class WrittenTogether:
    """Files that are written one after the other and wait for the disk once, together: by rename, mode 0600.

        with WrittenTogether() as together:
            for path, body in …:
                together.add(path, body)
            problems = together.finish()

    Of many files the disk is asked twice, once for all contents and once for all names (`atomic_write.sync_together`).

    Promise: at each path stands the old file or the new one, whole, whenever the process or the machine ends; after
    `finish` the new one is on the disk (tests/fed/privacy/test_written_together.py).

    Args:
        private: overwrite the versions that are replaced.
    """

    def __init__(self, *, private: bool = False) -> None:
        self._private = private
        self._building: dict[Path, int] = {}  # path -> descriptor of the file that is built beside it

    def __enter__(self) -> WrittenTogether:
        return self

    def __exit__(self, *_: object) -> None:
        for path in list(self._building):
            self._drop(path)

    def add(self, path: Path, body: bytes) -> None:
        """Build one more file; a path comes once. Raises OSError, and nothing is left of that file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        building = beside(path)
        descriptor = self._building[path] = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            left = memoryview(body)
            while left:
                left = left[os.write(descriptor, left) :]
        except BaseException as problem:
            self._drop(path)
            if isinstance(problem, OSError):
                raise_naming(problem, path, building)
            raise

    def finish(self) -> dict[Path, OSError]:
        """Put all of them in place, down to the disk; returns why some are not. Raises nothing that a file fails by."""
        problems: dict[Path, OSError] = {}
        in_place: dict[Path, list[Path]] = {}  # folder -> files whose names need it on the disk
        replaced: dict[Path, int] = {}  # path -> descriptor of the private version that has lost its name
        try:
            # The contents, before a name points to any of them.
            paths = {descriptor: path for path, descriptor in self._building.items()}
            for descriptor, problem in sync_together(list(paths)).items():
                with self._failing_alone(paths[descriptor], problems):
                    raise problem
            for path in list(self._building):
                with self._failing_alone(path, problems):
                    # A file's first version may be in a folder that is new.
                    folders = [path.parent] if path.exists() else [path.parent, path.parent.parent]
                    if self._private and path.is_file() and not path.is_symlink():
                        replaced[path] = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
                    os.replace(beside(path), path)
                    os.close(self._building.pop(path))
                    for folder in folders:
                        in_place.setdefault(folder, []).append(path)
            # The names, each folder once.
            for folder, problem in sync_folders(list(in_place)).items():
                problems |= dict.fromkeys(in_place[folder], problem)
            for path, descriptor in replaced.items():
                with self._failing_alone(path, problems):
                    if path not in problems:
                        overwrite(descriptor)
        finally:
            for descriptor in replaced.values():
                os.close(descriptor)
        return problems

    @contextmanager
    def _failing_alone(self, path: Path, problems: dict[Path, OSError]) -> Iterator[None]:
        try:
            yield
        except OSError as problem:
            self._drop(path)
            try:
                raise_naming(problem, path, beside(path))
            except OSError as named:
                problems[path] = named

    def _drop(self, path: Path) -> None:
        """Wipe the file that is built for a path, where there is one."""
        descriptor = self._building.pop(path, None)
        if descriptor is None:
            return
        building = beside(path)
        os.close(descriptor)
        with suppress(OSError):
            wipe(building)
        building.unlink(missing_ok=True)
