"""A user's folder in a vault, the owner's alone, and what is kept there beside the private edit.

<root>/<user>/personal.<name>.safetensors | .vault        a profile, plain wordings, the last federated edit
<root>/versions-<user>.vault                              where there is a secret (`fed.privacy.versions`)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fed.privacy import sealed
from fed.privacy.sealed import SealError, Secret
from fed.privacy.tensor_files import VaultError, decode, encode, read_file, write_file
from fed.privacy.versions import BESIDE, PREFIX, VERSION, Versions
from fed.privacy.wipe import wipe


class UserFiles:
    """The folders of users under one root.

    Args:
        secret: what seals the files; None: nothing does.
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

    def own_folder(self, user_id: str) -> Path:
        """The user's folder, made if need be; it and the vault's are the owner's alone (0700)."""
        for folder in (self.root, self.folder(user_id)):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
        return self.folder(user_id)

    def keep(self, user_id: str, name: str, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
        """Keep something else of a user's beside its private edit, for the device alone: `personal.<name>.…`.

        What was kept under the name before goes, sealed or not.
        """
        self.own_folder(user_id)
        body, path, version = encode(tensors, header), self._beside(user_id, name), self._next(user_id, {})
        if self._secret:
            front = {"user_id": user_id, "name": name} | ({VERSION: str(version)} if version else {})
            body = sealed.seal(body, front, self._secret)
        write_file(path, body, private=True)
        self._record(user_id, f"{BESIDE}{name}", version)
        wipe(path.with_suffix(".safetensors" if self._secret else ".vault"))

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
            self._versions(user_id, self._secret).check(f"{BESIDE}{name}", who)
        return decode(body, path)

    def _beside(self, user_id: str, name: str) -> Path:
        return self.folder(user_id) / f"personal.{name}.{'vault' if self._secret else 'safetensors'}"

    def _record_of(self, user_id: str) -> Path:
        return self.root / f"{PREFIX}{self.folder(user_id).name}.vault"

    def _next(self, user_id: str, before: Mapping[str, str]) -> int | None:
        """The number of the next sealed file of a user; None where nothing is sealed."""
        return self._versions(user_id, self._secret).next(before) if self._secret else None

    def _record(self, user_id: str, name: str, version: int | None) -> None:
        if self._secret:
            self._versions(user_id, self._secret).record(name, version)

    def _versions(self, user_id: str, secret: Secret) -> Versions:
        return Versions(self._record_of(user_id), secret, user_id)
