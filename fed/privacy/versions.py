"""Which version of each of a user's sealed files was written last, so that an older one of the same user is refused.

    <vault>/versions-<user's folder>.vault      sealed: {name: version}, apart from the folder that the files are in

Each write of a user's gets the next number, inside the file's authenticated header. A file that is put back has a
smaller one than the record says. Without a secret anybody could write any number: there, nothing is counted. A vault
that is put back as a whole, record and all, is not told from what it was then: only a place that its attacker cannot
write to would tell. A file from before there were numbers is taken as long as no number is known for its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fed.privacy import sealed
from fed.privacy.sealed import SealError, Secret
from fed.privacy.tensor_files import VaultError, read_file, write_file

VERSION = "version"  # the key in a file's header
PREFIX = "versions-"  # of the record's name
BESIDE = "beside "  # begins the name of what is no entry


class Versions:
    """The record of one user.

    Args:
        path: its file.
        secret: what seals it.
        user_id: whose it is.
    """

    def __init__(self, path: Path, secret: Secret, user_id: str) -> None:
        self._path, self._secret, self._user_id = path, secret, user_id

    def known(self) -> dict[str, int]:
        """name -> the version written last. Raises VaultError where the record is damaged or another's."""
        if not self._path.is_file():
            return {}
        try:
            body, header = sealed.unseal(read_file(self._path), self._secret)
            if header.get("user_id") != self._user_id:
                raise VaultError(f"the record of versions of user {self._user_id!r} is another's")
            return {str(name): int(version) for name, version in json.loads(body).items()}
        except (SealError, TypeError, AttributeError) as error:
            raise VaultError(f"the record of versions of user {self._user_id!r}: {error}") from None

    def next(self, headers: Mapping[str, str]) -> int:
        """The number of the next write, above all that is recorded and that of the file it replaces."""
        return 1 + max([*self.known().values(), int(headers.get(VERSION, 0))])

    def record(self, name: str, version: int | None) -> None:
        """Note what was just written under a name; None: that it is gone."""
        versions = {other: number for other, number in self.known().items() if other != name}
        if version is not None:
            versions[name] = version
        body = json.dumps(versions, sort_keys=True).encode()
        write_file(self._path, sealed.seal(body, {"user_id": self._user_id}, self._secret), private=True)

    def check(self, name: str | None, header: Mapping[str, str]) -> None:
        """Raises VaultError for a file that is older than what was written last under its name; None: any entry's."""
        versions = self.known().items()
        written = [v for other, v in versions if other == name or (name is None and not other.startswith(BESIDE))]
        last = max(written, default=0)
        own = int(header.get(VERSION, 0))
        if own < last:
            raise VaultError(
                f"a file of user {self._user_id!r} is of version {own}, and version {last} was written after it: it is "
                "an older one, put back; erase it and train again"
            )
        if own and not last:
            raise VaultError(
                f"a file of user {self._user_id!r} has version {own}, and {self._path.name} has no record of it; put "
                "the record back, or erase the user's files and train again"
            )
