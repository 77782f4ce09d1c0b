"""`explore.py delta-vectors`: every user's δ-vector and its control, computed user by user into a safetensors file.

    own     (U, d) float32   with the user's own history before each query, minus without
    other   (U, d) float32   the same with another user's history

The file is written through a memory map, row by row, and renamed when it is whole: what is held in memory does not
depend on how many users there are, and what was stopped goes on at the next user. A file of the same users, data, base,
layer and context is read, not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from console.command import Parser
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from safetensors import SafetensorError, safe_open

from exploration.figures import CHANCE, OWN, Drawing, Table, grid, legend, number
from exploration.options import Subject, add_context, add_device, caption, facts, folder, subject
from fed.exploration.collective_shift import cosine
from fed.exploration.delta_vectors import delta_vectors, lenders

SUMMARY = "δ-vectors of all users, and their controls"
Array = NDArray[np.float64]
Result = dict[str, Any]


@dataclass(frozen=True)
class Vectors:
    """own, other: (U, d) float64, a row for each of `users`; queries: over how many each mean goes."""

    users: tuple[str, ...]
    queries: tuple[int, ...]
    own: Array
    other: Array
    lender: Mapping[str, str]


def vectors_of(options: argparse.Namespace, console: Console, looked_at: Subject | None = None) -> Vectors:
    """The kept vectors, or new ones."""
    looked_at = looked_at or subject(options)
    header = _header(looked_at, options.seed)
    path = _path(options, looked_at, header)
    kept = _read(path, header)
    if kept is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, header, looked_at, options.seed, console)
        kept = _read(path, header)
        assert kept is not None
    own, other = kept
    queries = tuple(json.loads(header["queries"]))
    return Vectors(looked_at.users, queries, own, other, lenders(looked_at.users, options.seed))


def add_options(p: Parser) -> None:
    add_context(p)
    add_device(p)


def run(options: argparse.Namespace, console: Console) -> Result:
    looked_at = subject(options)
    vectors = vectors_of(options, console, looked_at)
    lengths = {
        name: np.linalg.norm(values, axis=1) for name, values in (("own", vectors.own), ("other", vectors.other))
    }
    return {
        "of": facts(options, looked_at.base.skeleton, len(vectors.users))
        | {"layer": looked_at.context.layer, "context": asdict(looked_at.context), "dtype": looked_at.base.dtype},
        "file": _path(options, looked_at, _header(looked_at, options.seed)).name,
        "queries": sum(vectors.queries),
        "lengths": {name: values.tolist() for name, values in lengths.items()},
        "cosine_of_own_and_other": [cosine(a, b) for a, b in zip(vectors.own, vectors.other, strict=True)],
    }


def words(result: Result) -> list[str]:
    own, other, agree = (
        float(np.median(values))
        for values in (result["lengths"]["own"], result["lengths"]["other"], result["cosine_of_own_and_other"])
    )
    return [
        f"{result['of']['users']} users, {result['queries']} queries; median length {own:.1f} with the own history, "
        f"{other:.1f} with another's; the two have a median cosine of {agree:.2f}: so much does any context do"
    ]


def tables(result: Result) -> list[Table]:
    rows = []
    for name, values in (*result["lengths"].items(), ("cosine of both", result["cosine_of_own_and_other"])):
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
        rows.append([name, number(low), number(middle), number(high)])
    return [Table("Lengths of δ-vectors, over users", ("context", "10 %", "median", "90 %"), rows)]


def drawings(result: Result) -> list[Drawing]:
    own, other = (np.array(result["lengths"][name]) for name in ("own", "other"))

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        top = max(own.max(), other.max()) * 1.05
        axes.plot([0, top], [0, top], color=CHANCE, linestyle=":", label="equal")
        axes.scatter(other, own, s=18, color=OWN, alpha=0.8, label="a user")
        axes.set_xlabel("length with another user's history (hidden-state units)")
        axes.set_ylabel("length with the own history")
        grid(axes)
        legend(figure)

    return [Drawing("delta-vectors", f"Lengths of δ-vectors\n{caption(result['of'])}", 3.6, paint)]


def _path(options: argparse.Namespace, looked_at: Subject, header: Mapping[str, str]) -> Path:
    """One file for each block, and for each set of users, context and seed at it."""
    name = hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()[:8]
    return folder(options) / f"delta-vectors-{looked_at.context.layer}-{name}.safetensors"


def _header(looked_at: Subject, seed: int) -> dict[str, str]:
    most = looked_at.context.max_queries
    counts = [looked_at.corpus.sizes(user)[1] for user in looked_at.users]
    return {
        "format": "1",
        "base": f"{looked_at.base.name} {looked_at.base.fingerprint} {looked_at.base.dtype}",
        "data": f"{looked_at.corpus.task.name} {looked_at.content}",
        "context": json.dumps(asdict(looked_at.context)),
        "seed": str(seed),
        "users": json.dumps(looked_at.users),
        "queries": json.dumps([min(count, most) if most else count for count in counts]),
    }


def _read(path: Path, header: Mapping[str, str]) -> tuple[Array, Array] | None:
    """(own, other) of a file of this very header; None where there is none, or it is torn."""
    try:
        with safe_open(path, framework="np") as file:
            if file.metadata() != dict(header):
                return None
            return file.get_tensor("own").astype(np.float64), file.get_tensor("other").astype(np.float64)
    except (OSError, SafetensorError):
        return None


def _write(path: Path, header: Mapping[str, str], looked_at: Subject, seed: int, console: Console) -> None:
    users, size = len(looked_at.users), looked_at.base.skeleton.hidden_size
    length = 4 * users * size
    head = json.dumps(
        {"__metadata__": dict(header)}
        | {
            name: {"dtype": "F32", "shape": [users, size], "data_offsets": [place * length, (place + 1) * length]}
            for place, name in enumerate(("own", "other"))
        }
    ).encode()
    head += b" " * (-len(head) % 8)
    head = len(head).to_bytes(8, "little") + head
    building = path.with_name(f".{path.name}.partial")
    if _head_of(building, len(head)) != head:
        with building.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + 2 * length)
        os.chmod(building, 0o600)
        np.memmap(building, "<f4", "r+", offset=len(head), shape=(2, users, size))[:] = np.nan
    rows = np.memmap(building, "<f4", "r+", offset=len(head), shape=(2, users, size))
    start = int(np.isfinite(rows[0, :, -1]).sum())
    shifts = delta_vectors(
        looked_at.base,
        looked_at.corpus.task,
        looked_at.users,
        looked_at.corpus.user,
        looked_at.context,
        seed=seed,
        start=start,
    )
    described = f"{looked_at.corpus.task.name}: δ-vectors"
    for place, shift in enumerate(
        track(shifts, described, total=users - start, console=console, transient=True), start
    ):
        rows[1, place], rows[0, place] = shift.other.numpy(), shift.own.numpy()  # the own one last: it is what counts
    rows.flush()
    os.replace(building, path)


def _head_of(path: Path, length: int) -> bytes | None:
    """The first bytes of a file; None where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(length)
    except OSError:
        return None
