"""The collective edits that a vault was handed: files under their fingerprints, kept as long as an entry needs them."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from fed.privacy.tensor_files import VaultError, fingerprint, read_tensors, save_tensors
from fed.privacy.wipe import wipe

NO_COLLECTIVE = "none"  # the name where a method federates nothing
_NAME = re.compile(r"[0-9a-f]{16}")


class Collectives:
    """The files `collective-<fingerprint>.safetensors` in one folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
        """Keep an edit; returns its fingerprint."""
        name = fingerprint(tensors)
        save_tensors(self._path(name), tensors, header)
        return name

    def read(self, name: str) -> dict[str, Tensor]:
        """The edit with this fingerprint. Raises VaultError where it is missing or altered."""
        if name == NO_COLLECTIVE:
            return {}
        if not _NAME.fullmatch(name):
            raise VaultError(f"a collective edit's name must be 16 hex digits, got {name!r}")
        tensors, _ = read_tensors(self._path(name))
        if fingerprint(tensors) != name:
            raise VaultError(f"{str(self._path(name))!r} is damaged: its fingerprint is another")
        return tensors

    def names(self) -> set[str]:
        """The fingerprints of all that are kept."""
        files = self._root.glob("collective-*.safetensors")
        return {path.name.removeprefix("collective-").removesuffix(".safetensors") for path in files}

    def keep_only(self, names: Collection[str]) -> int:
        """Wipe every other one; returns how many."""
        unneeded = self.names() - set(names)
        for name in sorted(unneeded):
            wipe(self._path(name))
        return len(unneeded)

    def _path(self, name: str) -> Path:
        return self._root / f"collective-{name}.safetensors"
