"""A user's entries in its folder of the vault: which files they are, and what their headers say before they are opened.

    personal.safetensors | personal.vault      the last that was written, of whatever use
    personal.entry-<use>.…                     an older one of another use: a method, a task and a collective edit

Headers are read without the secret and are not confirmed by it: they tell where to look, never what to trust.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fed.privacy import sealed
from fed.privacy.sealed import SealError
from fed.privacy.tensor_files import VaultError, decode, read_file
from fed.privacy.wipe import wipe

FORMAT = "2"  # 1 had no checksum over the header
PERSONAL, SEALED = "personal.safetensors", "personal.vault"
_BUILDING = re.compile(r"\.personal\.(?:[a-z0-9-]+\.)?(?:safetensors|vault)\.(\d+)")  # ends in the writer's process id


def use_of(header: Mapping[str, str]) -> str:
    """The name of what an entry is for: 10 hex digits over its method, its task and its collective edit."""
    text = json.dumps([*_kind(header), header.get("collective")])
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def checksum(header: Mapping[str, str]) -> str:
    """16 hex digits over a header without its own."""
    return hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode()).hexdigest()[:16]


def is_for(header: Mapping[str, str], method: str | None, task: str | None) -> bool:
    """Whether an entry is of this method and task; None is any."""
    return all(wanted in (None, own) for wanted, own in zip((method, task), _kind(header), strict=True))


def _kind(header: Mapping[str, str]) -> tuple[object, object]:
    try:
        settings = dict(json.loads(header.get("settings", "{}")))
    except (ValueError, TypeError):
        settings = {}
    return settings.get("method"), settings.get("task")


def aside(last: Path, header: Mapping[str, str]) -> Path:
    """Where the last entry goes when another use is written."""
    return last.with_name(f"personal.entry-{use_of(header)}{last.suffix}")


def older_files(folder: Path) -> list[Path]:
    """The entries that are not the last."""
    return sorted(path for path in folder.glob("personal.entry-*") if path.suffix in (".safetensors", ".vault"))


def files(folder: Path) -> list[Path]:
    """All entries of a user, the last first; where a write was cut short it is the latest of the others."""
    last = [path for name in (SEALED, PERSONAL) if (path := folder / name).is_file()]
    older = older_files(folder)
    return [*last, *(older if last else sorted(older, key=lambda path: -path.stat().st_mtime_ns))]


def headers(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Each entry of a user with its header, in that order; one that cannot be read is left out."""
    for path in files(folder):
        header = header_or_none(path)
        if header is not None:
            yield path, header


def header(path: Path) -> dict[str, str]:
    """An entry's header as it stands in the file. Raises VaultError."""
    whole = read_file(path)
    if path.suffix != ".vault":
        return decode(whole, path)[1]
    try:
        return {key: value for key, value in sealed.header_of(whole).items() if isinstance(value, str)}
    except SealError as error:
        raise VaultError(f"{str(path)!r} is damaged: {error}") from None


def header_or_none(path: Path) -> dict[str, str] | None:
    """The same; None where there is no file or none that can be read."""
    try:
        return header(path)
    except (VaultError, OSError):
        return None


def wipe_left_over(folder: Path) -> None:
    """Half-written files of processes that were killed; those of living ones stay."""
    for path in folder.glob(".personal.*"):
        built = _BUILDING.fullmatch(path.name)
        if built and not _runs(int(built[1])):
            wipe(path)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
