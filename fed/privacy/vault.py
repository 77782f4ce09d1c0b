"""Where a device keeps its private stage-2 tensors, and the collective edit it was given.

One folder a user: `<root>/<user>/personal.safetensors`, or `personal.vault` where the vault has a secret
(`fed.privacy.sealed`), written by rename, readable by its owner alone, in folders that are the owner's alone. The
header names the format, the base model, the collective edit and the settings that the private tensors were trained
with; they are refused with another base or collective edit. What a new version replaces is overwritten, and so is what
is erased (`fed.privacy.wipe`).

A user has an entry a use, which is a method, a task and a collective edit. The last that was written has the name
above; when another use is written, it becomes `personal.entry-<use>.…` and stays until the new one has been tested
(`retire`). A collective edit stays as long as an entry needs it. An older sealed file that is put back is refused
(`fed.privacy.versions`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from fed.privacy import entries, sealed
from fed.privacy.collectives import NO_COLLECTIVE, Collectives
from fed.privacy.entries import FORMAT, PERSONAL, SEALED, checksum, use_of
from fed.privacy.sealed import SealError, Secret
from fed.privacy.tensor_files import VaultError, decode, fingerprint, read_file
from fed.privacy.wipe import erase_everything, user_folders, wipe, wipe_folder
from fed.privacy.writing import WrittenEntries

__all__ = ["NO_COLLECTIVE", "PERSONAL", "SEALED", "Entry", "Vault"]


@dataclass(frozen=True)
class Entry:
    """What a vault holds of one user. header: see `WrittenEntries.write`."""

    tensors: dict[str, Tensor]
    header: dict[str, str]


class Vault(WrittenEntries):
    """The private tensors of the users that one device or one simulated SuperNode hosts.

    Args:
        secret: what seals the files; with one, a file that is not sealed is refused, and the other way round.
    """

    def __init__(self, root: Path, secret: Secret | None = None) -> None:
        super().__init__(root, secret)
        self._collectives = Collectives(root)

    def has(
        self, user_id: str, *, collective: str | None = None, method: str | None = None, task: str | None = None
    ) -> bool:
        """Whether there is an entry of the user's for this collective edit, method and task; None is any."""
        folder = self.folder(user_id)
        if collective is None:
            return bool(entries.files(folder))
        return any(
            header.get("collective") == collective and entries.is_for(header, method, task)
            for _, header in entries.headers(folder)
        )

    def users(self) -> list[str]:
        """Whose tensors are here, sorted; as the headers say, which a sealed file's key has not confirmed yet."""
        folders = user_folders(self.root)
        return sorted({header.get("user_id", "") for folder in folders for _, header in entries.headers(folder)})

    def unreadable(self) -> list[str]:
        """The names of users' folders whose entries cannot be read, sorted."""
        folders = user_folders(self.root)
        return [folder.name for folder in folders if entries.files(folder) and not any(entries.headers(folder))]

    def open(self, user_id: str) -> Entry:
        """The last entry of a user, checked. Raises VaultError, also for the wrong secret."""
        return self._open(user_id, self._last(user_id), is_last=True)

    def read(
        self, user_id: str, *, base: str, collective: str, method: str | None = None, task: str | None = None
    ) -> dict[str, Tensor]:
        """A user's private edit. Raises VaultError unless it was made for this base and collective edit.

        Args:
            method, task: what else it must be for; None: anything.
        """
        path = self._last(user_id)
        if entries.older_files(path.parent):
            of_use = (
                of_user
                for of_user, header in entries.headers(path.parent)
                if header.get("collective") == collective and entries.is_for(header, method, task)
            )
            path = next(of_use, path)
        entry = self._open(user_id, path)
        for key, value in (("base", base), ("collective", collective)):
            if entry.header.get(key) != value:
                raise VaultError(
                    f"the vault of user {user_id!r} has {key} {entry.header.get(key)!r}, this run needs {value!r}"
                )
        if not entries.is_for(entry.header, method, task):
            raise VaultError(f"the vault of user {user_id!r} is of another method or task than {method!r} and {task!r}")
        return entry.tensors

    def retire(self, users: Iterable[str], *, method: str, task: str, collective: str) -> int:
        """Wipe these users' older entries of the same method and task: those of this collective edit are tested.

        Collective edits that no entry needs any more go too. Returns how many entries went.
        """
        count = 0
        for user_id in users:
            for path in entries.older_files(self.folder(user_id)):
                header = entries.header_or_none(path) or {}
                if entries.is_for(header, method, task) and header.get("collective") != collective:
                    wipe(path)
                    self._record(user_id, use_of(header), None)
                    count += 1
        self._drop_collectives(collective)
        return count

    def header(self, user_id: str) -> dict[str, str]:
        """A user's header as it stands in the file, readable without the secret and not confirmed by it."""
        return entries.header(self._last(user_id))

    def is_sealed(self, user_id: str) -> bool:
        """Whether the user's last entry is encrypted."""
        return self._last(user_id).suffix == ".vault"

    def settings(self, user_id: str) -> dict[str, object]:
        """What the user's private edit was trained with."""
        return dict(json.loads(self.header(user_id).get("settings", "{}")))

    def erase(self, user_id: str) -> int:
        """Overwrite and remove all that there is of a user's, half-written files too; returns how many. Raises OSError.

        No header is read for it. Collective edits that no other user's entry needs go too.
        """
        folder, record = self.folder(user_id), self._record_of(user_id)
        count = wipe_folder(folder) if folder.is_symlink() or folder.exists() else 0
        if record.is_file():
            wipe(record)
            count += 1
        return count + (self._drop_collectives() if count else 0)

    def erase_all(self) -> int:
        """Overwrite and remove everybody's files and the collective edits, half-written files too, and nothing else.

        Returns how many files. Raises OSError.
        """
        return erase_everything(self.root)

    def write_collective(self, tensors: Mapping[str, Tensor]) -> str:
        """Keep the collective edit that the server handed out; returns its fingerprint."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.root.chmod(0o700)
        return self._collectives.write(tensors, {"format": FORMAT})

    def read_collective(self, name: str) -> dict[str, Tensor]:
        """The collective edit with this fingerprint. Raises VaultError where it is missing or altered."""
        return self._collectives.read(name)

    def _open(self, user_id: str, path: Path, *, is_last: bool = False) -> Entry:
        """An entry in a file, checked. is_last: that nothing of the user's may have been written after it."""
        who = f"the vault of user {user_id!r}"
        if path.is_file() and (path.suffix == ".vault") != self.has_secret:
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
        if header.pop("checksum", "") != checksum(header):
            raise VaultError(f"{who} is damaged: the checksum of its header is another")
        if header.get("values") != fingerprint(tensors):
            raise VaultError(f"{who} is damaged: its fingerprint is another")
        if self._secret:
            self._versions(user_id, self._secret).check(None if is_last else use_of(header), header)
        return Entry(tensors, header)

    def _last(self, user_id: str) -> Path:
        """The file of the user's last entry, or where it would be."""
        folder = self.folder(user_id)
        wanted = folder / (SEALED if self._secret else PERSONAL)
        return wanted if wanted.is_file() else next(iter(entries.files(folder)), wanted)

    def _drop_collectives(self, *needed: str) -> int:
        """Wipe the collective edits that no entry needs; none where an entry does not say which it needs."""
        if self._collectives.names() <= set(needed) or self.unreadable():
            return 0
        found = (header for folder in user_folders(self.root) for _, header in entries.headers(folder))
        return self._collectives.keep_only({*needed, *(header.get("collective", "") for header in found)})
