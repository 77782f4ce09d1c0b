"""A finished round on disk: the edit, what the strategy remembers, the rows of `rounds.jsonl`, the ledger,
and which replies were no good.

One file, `checkpoint.safetensors`: built beside, synced, renamed; the one it takes the place of stays as
`checkpoint.previous.safetensors`. A checksum covers all of it, so that a torn or altered file is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fed.communication.ledger import Entry
from fed.methods.method import Tensors
from fed.privacy.tensor_files import VaultError, fingerprint, read_tensors, save_tensors
from server_strategy.grid.nodes import RunError

FILE, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous.safetensors"
FORMAT = "1"
_LEDGER, _ERRORS, _EDIT = "ledger", "errors", "edit/"


@dataclass(frozen=True)
class Checkpoint:
    """A run after a round of stage 1.

    Attributes:
        round: how many rounds are finished; 0 before the first.
        identity: what must be the same when the run is gone on with: settings, base, users.
        edit: the collective edit, in the strategies' dtype; empty before round 1.
        memory: the tensors that the strategy and its steps remember, as `memory.remembered` names them.
        forms: how these are put together.
        rows: the rows of `rounds.jsonl`.
        entries: the ledger's.
        errors: of the report, those until then; empty in a checkpoint of before they were kept.
    """

    round: int
    identity: Mapping[str, Any]
    edit: Tensors = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)
    forms: list[Any] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """Keep a checkpoint; the one before stays beside it.

    Promise: wherever the process is killed, one of the two is whole
    (tests/server_strategy/checkpoint/test_checkpoint.py).

    Raises:
        OSError: it names the path.
    """
    tensors = {
        **{_EDIT + name: tensor for name, tensor in checkpoint.edit.items()},
        **checkpoint.memory,
        _LEDGER: _as_tensor(checkpoint.entries),
        _ERRORS: _as_tensor(checkpoint.errors),
    }
    header = {
        "format": FORMAT,
        "round": str(checkpoint.round),
        "identity": json.dumps(checkpoint.identity),
        "forms": json.dumps(checkpoint.forms),
        "rows": json.dumps(checkpoint.rows),
        "values": fingerprint(tensors),
    }
    header["checksum"] = _checksum(header)
    current, previous = folder / FILE, folder / PREVIOUS
    if current.exists():
        # A second name of the same file, so that at no moment there is none.
        aside = folder / f".{PREVIOUS}.{os.getpid()}"
        aside.unlink(missing_ok=True)
        os.link(current, aside)
        os.replace(aside, previous)
    save_tensors(current, tensors, header)


def read(folder: Path) -> Checkpoint | None:
    """The last checkpoint of a run's folder; None where it has none.

    Raises:
        RunError: it is torn, altered, or of another format; one line, with the way back to the round before.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        tensors, header = read_tensors(path)
        claimed = header.pop("checksum", "")
        if header.get("format") != FORMAT:
            raise VaultError(f"{str(path)!r} has format {header.get('format')!r}, this release reads {FORMAT!r}")
        if claimed != _checksum(header) or header["values"] != fingerprint(tensors):
            raise VaultError(f"{str(path)!r} is damaged: its checksum is another")
    except VaultError as error:
        back = f"; to go on one round earlier, rename {PREVIOUS} to {FILE}" if (folder / PREVIOUS).exists() else ""
        raise RunError(f"resume needs a whole checkpoint, but {' '.join(str(error).split())}{back}") from None
    entries = [Entry(*row) for row in _from_tensor(tensors.pop(_LEDGER))]
    errors = _from_tensor(tensors.pop(_ERRORS)) if _ERRORS in tensors else []
    return Checkpoint(
        int(header["round"]),
        json.loads(header["identity"]),
        {name.removeprefix(_EDIT): tensor for name, tensor in tensors.items() if name.startswith(_EDIT)},
        {name: tensor for name, tensor in tensors.items() if not name.startswith(_EDIT)},
        json.loads(header["forms"]),
        json.loads(header["rows"]),
        entries,
        errors,
    )


def _as_tensor(table: Sequence[Any]) -> Tensor:
    """What may be longer than a header can: JSON, as bytes."""
    return torch.frombuffer(bytearray(json.dumps(table).encode()), dtype=torch.uint8)


def _from_tensor(text: Tensor) -> list[Any]:
    return list(json.loads(bytes(text.numpy())))


def _checksum(header: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(header), sort_keys=True).encode()).hexdigest()[:16]
