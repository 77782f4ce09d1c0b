"""Where a device keeps its private stage-2 tensors, and the collective edit it was given.

One folder a user: `<root>/<user>/personal.safetensors`, or `personal.vault` where the vault has a secret
(`fed.privacy.sealed`), written by rename, readable by its owner alone. The header names the format, the base model, the
collective edit and the settings that the private tensors were trained with; they are refused with another base or
collective edit. What a new version replaces is overwritten, and so is what is erased (`fed.privacy.wipe`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fed.privacy import sealed
from fed.privacy.sealed import SealError, Secret
from fed.privacy.tensor_files import (
    VaultError,
    decode,
    encode,
    fingerprint,
    read_file,
    read_tensors,
    save_tensors,
    write_file,
)
from fed.privacy.wipe import wipe, wipe_folder

FORMAT = "2"  # 1 had no checksum over the header
PERSONAL, SEALED = "personal.safetensors", "personal.vault"
NO_COLLECTIVE = "none"  # the name where a method federates nothing
_BUILDING = re.compile(r"\.personal\.(?:safetensors|vault)\.(\d+)")  # ends in the writer's process id


@dataclass(frozen=True)
class Entry:
    """What a vault holds of one user. header: see `Vault.write`."""

    tensors: dict[str, Tensor]
    header: dict[str, str]


class Vault:
    """The private tensors of the users that one device or one simulated SuperNode hosts.

    Args:
        secret: what seals the files; with one, a file that is not sealed is refused, and the other way round.
    """

    def __init__(self, root: Path, secret: Secret | None = None) -> None:
        self.root, self._secret = root, secret

    @property
    def has_secret(self) -> bool:
        return self._secret is not None

    def folder(self, user_id: str) -> Path:
        """The user's folder; the name is readable where it can be, and always unique."""
        plain = re.sub(r"[^A-Za-z0-9_.-]", "_", user_id)[:40].strip(".")
        return self.root / f"{plain}-{hashlib.sha256(user_id.encode()).hexdigest()[:10]}"

    def has(self, user_id: str) -> bool:
        return any((self.folder(user_id) / name).is_file() for name in (PERSONAL, SEALED))

    def users(self) -> list[str]:
        """Whose tensors are here, sorted; as the headers say, which a sealed file's key has not confirmed yet."""
        files = sorted([*self.root.glob(f"*/{PERSONAL}"), *self.root.glob(f"*/{SEALED}")])
        return sorted({str(_header(path).get("user_id", "")) for path in files})

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
        header["checksum"] = _checksum(header)
        body = encode(tensors, header)
        folder = self.folder(user_id)
        if self._secret:
            write_file(folder / SEALED, sealed.seal(body, header, self._secret), private=True)
            wipe(folder / PERSONAL)
        else:
            write_file(folder / PERSONAL, body, private=True)
            wipe(folder / SEALED)
        _wipe_left_over(folder)

    def open(self, user_id: str) -> Entry:
        """A user's tensors and header, checked against each other. Raises VaultError, also for the wrong secret."""
        folder, who = self.folder(user_id), f"the vault of user {user_id!r}"
        path = folder / (SEALED if self._secret else PERSONAL)
        if not path.is_file() and self.has(user_id):
            raise VaultError(
                f"{who} is not encrypted, but a key or passphrase is given; erase it and train again, or give none"
                if self._secret
                else f"{who} is encrypted; give its vault-key-file or vault-passphrase-file"
            )
        whole = read_file(path)
        if self._secret:
            try:
                whole, _ = sealed.unseal(whole, self._secret)
            except SealError as error:
                raise VaultError(f"{who}: {error}") from None
        tensors, header = decode(whole, path)
        for key, value in (("format", FORMAT), ("user_id", user_id)):
            if header.get(key) != value:
                raise VaultError(f"{who} has {key} {header.get(key)!r}, this run needs {value!r}")
        if header.pop("checksum", "") != _checksum(header):
            raise VaultError(f"{who} is damaged: the checksum of its header is another")
        if header.get("values") != fingerprint(tensors):
            raise VaultError(f"{who} is damaged: its fingerprint is another")
        return Entry(tensors, header)

    def read(self, user_id: str, *, base: str, collective: str) -> dict[str, Tensor]:
        """A user's private edit. Raises VaultError unless it was made for this base and collective edit."""
        entry = self.open(user_id)
        for key, value in (("base", base), ("collective", collective)):
            if entry.header.get(key) != value:
                raise VaultError(
                    f"the vault of user {user_id!r} has {key} {entry.header.get(key)!r}, this run needs {value!r}"
                )
        return entry.tensors

    def header(self, user_id: str) -> dict[str, str]:
        """A user's header as it stands in the file, readable without the secret and not confirmed by it."""
        folder = self.folder(user_id)
        return _header(folder / SEALED if (folder / SEALED).is_file() else folder / PERSONAL)

    def keep(self, user_id: str, name: str, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
        """Keep something else of a user's beside its private edit, for the device alone: `personal.<name>.…`."""
        body, path = encode(tensors, header), self._beside(user_id, name)
        if self._secret:
            body = sealed.seal(body, {"user_id": user_id, "name": name}, self._secret)
        write_file(path, body, private=True)

    def kept(self, user_id: str, name: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
        """(tensors, header) of what is kept under a name; None where nothing is. Raises VaultError where damaged."""
        path = self._beside(user_id, name)
        if not path.is_file():
            return None
        body = read_file(path)
        if self._secret:
            try:
                body, who = sealed.unseal(body, self._secret)
            except SealError as error:
                raise VaultError(f"what the vault of user {user_id!r} keeps as {name!r}: {error}") from None
            if (who.get("user_id"), who.get("name")) != (user_id, name):
                raise VaultError(f"what the vault of user {user_id!r} keeps as {name!r} is another's")
        return decode(body, path)

    def _beside(self, user_id: str, name: str) -> Path:
        return self.folder(user_id) / f"personal.{name}.{'vault' if self._secret else 'safetensors'}"

    def settings(self, user_id: str) -> dict[str, object]:
        """What the user's private edit was trained with."""
        return dict(json.loads(self.header(user_id).get("settings", "{}")))

    def erase(self, user_id: str) -> int:
        """Overwrite and remove a user's files, half-written ones too; returns how many. Raises OSError."""
        folder = self.folder(user_id)
        return wipe_folder(folder) if folder.exists() else 0

    def erase_all(self) -> int:
        """Overwrite and remove everybody's tensors and the collective edits, half-written files too, and nothing else.

        Returns how many files. Raises OSError.
        """
        patterns = ("*/personal.*", "*/.personal.*", "collective-*.safetensors", ".collective-*.safetensors.*")
        files = [path for pattern in patterns for path in self.root.glob(pattern)]
        for path in files:
            wipe(path)
        for folder in {path.parent for path in files} - {self.root}:
            with suppress(OSError):  # a folder that somebody keeps other files in
                folder.rmdir()
        return len(files)

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


def _checksum(header: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode()).hexdigest()[:16]


def _header(path: Path) -> dict[str, str]:
    whole = read_file(path)
    if path.name != SEALED:
        return decode(whole, path)[1]
    try:
        return {key: value for key, value in sealed.header_of(whole).items() if isinstance(value, str)}
    except SealError as error:
        raise VaultError(f"{str(path)!r} is damaged: {error}") from None


def _wipe_left_over(folder: Path) -> None:
    """Half-written files of processes that were killed; those of living ones stay."""
    for path in folder.glob(".personal.*"):
        found = _BUILDING.fullmatch(path.name)
        if found and not _runs(int(found[1])):
            wipe(path)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
