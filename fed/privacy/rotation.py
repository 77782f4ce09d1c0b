"""A vault's files under another secret: every sealed file opened with the old one and sealed with the new.

All files are opened before the first is written, so a wrong secret changes nothing. Each is written by rename, and one
that the new secret opens is left: a rotation that was cut short is begun again with the same two secrets.
"""

from __future__ import annotations

from pathlib import Path

from fed.privacy import sealed
from fed.privacy.sealed import SealError, Secret
from fed.privacy.tensor_files import VaultError, read_file, write_file
from fed.privacy.wipe import user_folders


def rotate(root: Path, old: Secret, new: Secret) -> int:
    """Seal what is sealed with `old` with `new`. Returns how many files. Raises VaultError for one neither opens."""
    files = [path for folder in (root, *user_folders(root)) for path in sorted(folder.glob("*.vault"))]
    opened = []
    for path in files:
        if path.is_symlink():
            continue
        whole = read_file(path)
        try:
            sealed.unseal(whole, new)
            continue
        except SealError:
            pass  # not yet under the new one
        try:
            opened.append((path, *sealed.unseal(whole, old)))
        except SealError as error:
            raise VaultError(f"{str(path)!r}: {error}; nothing was changed") from None
    for path, body, header in opened:
        write_file(path, sealed.seal(body, header, new), private=True)
    return len(opened)
