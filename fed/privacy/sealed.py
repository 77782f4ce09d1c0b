"""Sealed bytes: AES-256-GCM under a key file or a passphrase, with a header that is readable and authenticated.

    file = MAGIC | length of the header (4 bytes, big-endian) | header (JSON) | ciphertext and its tag

Everything before the ciphertext is the associated data, so a changed header is refused like a changed body. The key is
the 32 bytes of a key file, or scrypt of a passphrase (RFC 7914) with the salt and costs that the header names; each
file has a random 96-bit nonce (NIST SP 800-38D). Needs the package `cryptography`, which Flower needs too.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fed.atomic_write import sync

MAGIC = b"perfit-vault\n"
CIPHER = "AES-256-GCM"
KEY_BYTES, NONCE_BYTES, SALT_BYTES = 32, 12, 16
SCRYPT = {"n": 1 << 15, "r": 8, "p": 3}  # 32 MiB; of OWASP's recommended equivalents the one that small devices can pay
_LARGEST = {"n": 1 << 20, "r": 32, "p": 16}  # of a file that somebody else wrote
_LONGEST_HEADER = 1 << 20


class SealError(ValueError):
    """A secret cannot be used, or a sealed file cannot be opened. Never names the secret."""


@dataclass(frozen=True)
class Secret:
    """What seals and opens: a key, or a passphrase that scrypt makes one of. Its text never shows it."""

    kind: str  # "key-file" | "passphrase"
    value: bytes = field(repr=False)

    @classmethod
    def from_key_file(cls, path: Path) -> Secret:
        """The 32 bytes of a file that only its owner may read. Raises SealError."""
        value = _read_private(path, "key file")
        if len(value) != KEY_BYTES:
            raise SealError(
                f"a key file must hold exactly {KEY_BYTES} bytes, {str(path)!r} holds {len(value)}; "
                f"make one with: python -m clients.vault new-key {path}"
            )
        return cls("key-file", value)

    @classmethod
    def from_passphrase_file(cls, path: Path) -> Secret:
        """The first line of a file that only its owner may read, however an editor ends and encodes it.

        A byte order mark is no part of it, nor is a carriage return at its end; after a mark of UTF-16, as of Windows'
        shells, it is the same passphrase as in UTF-8. Raises SealError.
        """
        value = _read_private(path, "passphrase file")
        try:
            wide = value.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
            text = value.decode("utf-16") if wide else value.decode("utf-8", "surrogateescape").removeprefix("\ufeff")
        except UnicodeDecodeError:
            raise SealError(f"the passphrase file must be UTF-8 or whole UTF-16, {str(path)!r} is neither") from None
        return cls.from_passphrase(re.split("\r|\n", text, maxsplit=1)[0])

    @classmethod
    def from_passphrase(cls, text: str) -> Secret:
        """Raises SealError for an empty passphrase."""
        if not text.strip():
            raise SealError("a passphrase must not be empty")
        return cls("passphrase", text.encode("utf-8", "surrogateescape"))

    def key(self, kdf: Mapping[str, Any]) -> bytes:
        """The AES key for a file whose header has this `kdf` entry. Raises SealError for another kind of secret."""
        if kdf.get("name") != ("scrypt" if self.kind == "passphrase" else "key-file"):
            needed = "a passphrase" if kdf.get("name") == "scrypt" else "a key file"
            raise SealError(f"the file is sealed with {needed}, and a {self.kind} was given")
        if self.kind == "key-file":
            return self.value
        costs: dict[str, Any] = {name: kdf.get(name) for name in SCRYPT}
        if not all(isinstance(value, int) and 0 < value <= _LARGEST[name] for name, value in costs.items()):
            raise SealError(f"scrypt's costs must be at most {_LARGEST}, the file has {costs}")
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        salt = bytes.fromhex(str(kdf.get("salt", "")))
        return bytes(Scrypt(salt=salt, length=KEY_BYTES, **costs).derive(self.value))


def new_key_file(path: Path) -> None:
    """Write 32 random bytes, mode 0600. Raises FileExistsError rather than lose a key."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(KEY_BYTES))
        file.flush()
        sync(file.fileno())


def seal(body: bytes, header: Mapping[str, Any], secret: Secret) -> bytes:
    """The bytes of a sealed file; the header gains the entry `seal`."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    kdf: dict[str, Any] = {"name": "key-file"}
    if secret.kind == "passphrase":
        kdf = {"name": "scrypt", "salt": os.urandom(SALT_BYTES).hex(), **SCRYPT}
    nonce = os.urandom(NONCE_BYTES)
    whole = {**header, "seal": {"cipher": CIPHER, "nonce": nonce.hex(), "kdf": kdf}}
    text = json.dumps(whole, sort_keys=True).encode()
    front = MAGIC + len(text).to_bytes(4, "big") + text
    return front + AESGCM(secret.key(kdf)).encrypt(nonce, body, front)


def is_sealed(whole: bytes) -> bool:
    """Whether bytes begin as a sealed file does."""
    return whole.startswith(MAGIC)


def header_of(whole: bytes) -> dict[str, Any]:
    """The header of a sealed file, not yet authenticated. Raises SealError where it cannot be read."""
    return _split(whole)[0]


def unseal(whole: bytes, secret: Secret) -> tuple[bytes, dict[str, Any]]:
    """(body, header), both authenticated. Raises SealError for another secret or an altered file, which look alike."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    header, front, ciphertext = _split(whole)
    try:
        entry = dict(header.pop("seal"))
        if entry.get("cipher") != CIPHER:
            raise SealError(f"a sealed file must use {CIPHER}, this one says {entry.get('cipher')!r}")
        key = secret.key(dict(entry["kdf"]))
        body = AESGCM(key).decrypt(bytes.fromhex(entry["nonce"]), ciphertext, front)
    except SealError:
        raise
    except InvalidTag:
        raise SealError(f"it does not open: this is not its {secret.kind}, or the file has been altered") from None
    except (KeyError, TypeError, ValueError) as error:
        raise SealError(f"its header cannot be used ({type(error).__name__}): the file has been altered") from None
    return body, header


def _split(whole: bytes) -> tuple[dict[str, Any], bytes, bytes]:
    """(header, all bytes before the ciphertext, ciphertext)."""
    start = len(MAGIC) + 4
    length = int.from_bytes(whole[len(MAGIC) : start], "big")
    if not is_sealed(whole) or length > _LONGEST_HEADER or len(whole) < start + length:
        raise SealError("it is cut short or not a sealed file")
    try:
        header = json.loads(whole[start : start + length])
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise SealError("its header cannot be read: the file has been altered")
    return header, whole[: start + length], whole[start + length :]


def _read_private(path: Path, what: str) -> bytes:
    """A secret's file. Raises SealError where it is missing or others may read it."""
    try:
        mode = path.stat().st_mode
        value = path.read_bytes()
    except OSError as error:
        raise SealError(f"the {what} must be readable, and {str(path)!r} is not ({error.strerror})") from None
    if stat.S_IMODE(mode) & 0o077:
        raise SealError(f"the {what} must be its owner's alone; run: chmod 600 {path}")
    return value
