"""Where a device keeps its private stage-2 tensors, and the collective edit it was given.

One folder a user: `<root>/<user>/personal.safetensors`, written by rename, readable by its owner alone. The header
names the base model and the collective edit that the private one was trained on; it is refused with others.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

FORMAT = "1"
PERSONAL = "personal.safetensors"
NO_COLLECTIVE = "none"  # the name where a method federates nothing


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
    path.parent.mkdir(parents=True, exist_ok=True)
    body = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, dict(header))
    building = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(building, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.replace(building, path)
    except BaseException:
        building.unlink(missing_ok=True)
        raise


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, header). Raises VaultError where the file is missing or damaged."""
    try:
        with safe_open(str(path), "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except FileNotFoundError as error:
        raise VaultError(f"there must be a file at {str(path)!r}, and there is none") from error
    except (SafetensorError, OSError) as error:
        raise VaultError(f"{str(path)!r} is damaged: {error}") from error


class Vault:
    """The private tensors of the users that one device or one simulated SuperNode hosts."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, user_id: str) -> Path:
        """The user's folder; the name is readable where it can be, and always unique."""
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", user_id)[:40].strip(".")
        return self.root / f"{plain}-{hashlib.sha256(user_id.encode()).hexdigest()[:10]}"

    def has(self, user_id: str) -> bool:
        return (self.folder(user_id) / PERSONAL).is_file()

    def write(self, user_id: str, tensors: Mapping[str, Tensor], *, base: str, collective: str, settings: str) -> None:
        """Keep a user's private edit. base, collective: fingerprints; settings: JSON of what it was trained with."""
        header = {
            "format": FORMAT,
            "user_id": user_id,
            "base": base,
            "collective": collective,
            "settings": settings,
            "values": fingerprint(tensors),
        }
        save_tensors(self.folder(user_id) / PERSONAL, tensors, header)

    def read(self, user_id: str, *, base: str, collective: str) -> dict[str, Tensor]:
        """A user's private edit. Raises VaultError unless it was made for this base and collective edit."""
        tensors, header = read_tensors(self.folder(user_id) / PERSONAL)
        wanted = {"format": FORMAT, "user_id": user_id, "base": base, "collective": collective}
        for key, value in wanted.items():
            if header.get(key) != value:
                raise VaultError(
                    f"the vault of user {user_id!r} has {key} {header.get(key)!r}, this run needs {value!r}"
                )
        if header.get("values") != fingerprint(tensors):
            raise VaultError(f"the vault of user {user_id!r} is damaged: its fingerprint is another")
        return tensors

    def keep(self, user_id: str, name: str, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
        """Keep something else of a user's beside its private edit, for the device alone: `personal.<name>.…`."""
        save_tensors(self._beside(user_id, name), tensors, header)

    def kept(self, user_id: str, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """(tensors, header) of what is kept under a name; None where nothing is. Raises VaultError where damaged."""
        path = self._beside(user_id, name)
        return read_tensors(path) if path.is_file() else None

    def _beside(self, user_id: str, name: str) -> Path:
        return self.folder(user_id) / f"personal.{name}.safetensors"

    def settings(self, user_id: str) -> dict[str, object]:
        """What the user's private edit was trained with."""
        _, header = read_tensors(self.folder(user_id) / PERSONAL)
        return dict(json.loads(header.get("settings", "{}")))

    def erase(self, user_id: str) -> None:
        """Forget a user; nothing happens where there is nothing. Raises OSError where the tensors would stay."""
        if self.folder(user_id).exists():
            shutil.rmtree(self.folder(user_id))

    def write_collective(self, tensors: Mapping[str, Tensor]) -> str:
        """Keep the collective edit that the server handed out; returns its fingerprint."""
        name = fingerprint(tensors)
        save_tensors(self._collective(name), tensors, {"format": FORMAT})
        return name

    def read_collective(self, name: str) -> dict[str, Tensor]:
        """The collective edit with this fingerprint. Raises VaultError where it is missing or altered."""
        if name == NO_COLLECTIVE:
            return {}
        tensors, _ = read_tensors(self._collective(name))
        if fingerprint(tensors) != name:
            raise VaultError(f"{str(self._collective(name))!r} is damaged: its fingerprint is another")
        return tensors

    def _collective(self, name: str) -> Path:
        return self.root / f"collective-{name}.safetensors"
