"""Private edits into a vault, one user's or many users' together, so that many wait for the disk no longer than one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fed.privacy import entries, sealed
from fed.privacy.entries import FORMAT, PERSONAL, SEALED, checksum, use_of
from fed.privacy.tensor_files import VaultError, WrittenTogether, encode, fingerprint
from fed.privacy.user_files import UserFiles
from fed.privacy.versions import VERSION
from fed.privacy.wipe import wipe


class WrittenEntries(UserFiles):
    """The folders of users under one root, with each user's last entry."""

    def write(
        self, user_id: str, tensors: Mapping[str, Tensor], *, base: str, collective: str, settings: str, done: str = ""
    ) -> None:
        """Keep one user's private edit; arguments as of `write_all`. Raises OSError, VaultError."""
        edits = {user_id: (tensors, done)}
        for problem in self.write_all(edits, base=base, collective=collective, settings=settings).values():
            raise problem

    def write_all(
        self, edits: Mapping[str, tuple[Mapping[str, Tensor], str]], *, base: str, collective: str, settings: str
    ) -> dict[str, OSError | VaultError]:
        """Keep users' private edits; the disk is waited for twice in all, not twice a user.

        Args:
            edits: user -> (tensors, of which run they are: `fed.resuming.of_run`, or "").
            base, collective: fingerprints of what they were trained on.
            settings: JSON of what they were trained with.
        Returns:
            Why some users' are not kept; the others' are on the disk.
        """
        of_all = {"format": FORMAT, "base": base, "collective": collective, "settings": settings}
        problems: dict[str, OSError | VaultError] = {}
        headers: dict[str, dict[str, str]] = {}
        with WrittenTogether(private=True) as together:
            for user_id, (tensors, done) in edits.items():
                header = {**of_all, "user_id": user_id, "values": fingerprint(tensors)}
                try:
                    headers[user_id] = self._build(together, tensors, header, done)
                except (OSError, VaultError) as problem:
                    problems[user_id] = problem
            failed = together.finish()
        for user_id, header in headers.items():
            try:
                self._settle(user_id, header, failed)
            except (OSError, VaultError) as problem:
                problems[user_id] = problem
        return problems

    def _build(
        self, together: WrittenTogether, tensors: Mapping[str, Tensor], header: dict[str, str], done: str
    ) -> dict[str, str]:
        """Begin to write a user's last entry; returns its whole header."""
        user_id, use = header["user_id"], use_of(header)
        path, _ = self._names(self.own_folder(user_id))
        # The last entry goes under its use's name, where that is another.
        before = entries.header_or_none(path) or {}
        if before.get("user_id") == user_id and use_of(before) != use:
            os.replace(path, entries.aside(path, before))
        # The new one; where it is sealed, with the next number.
        version = self._next(user_id, before)
        if version:
            header[VERSION] = str(version)
        header |= {"done": done} if done else {}
        header["checksum"] = checksum(header)
        body = encode(tensors, header)
        together.add(path, sealed.seal(body, header, self._secret) if self._secret else body)
        return header

    def _settle(self, user_id: str, header: dict[str, str], failed: Mapping[Path, OSError]) -> None:
        """Number what was written of a user, and wipe what it replaces. failed: files that are not in place."""
        folder = self.folder(user_id)
        path, other = self._names(folder)
        if path in failed:
            raise failed[path]
        self._record(user_id, use_of(header), int(header[VERSION]) if VERSION in header else None)
        # A file of the same use, those of the other kind, and what a killed process left.
        wipe(entries.aside(path, header))
        for replaced in (other, *(older for older in entries.older_files(folder) if older.suffix == other.suffix)):
            wipe(replaced)
        entries.wipe_left_over(folder)

    def _names(self, folder: Path) -> tuple[Path, Path]:
        """Where a user's last entry is, and where it would be with a secret if there is none, or without."""
        names = (SEALED, PERSONAL) if self._secret else (PERSONAL, SEALED)
        return folder / names[0], folder / names[1]
