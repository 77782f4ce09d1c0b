"""Relative paths of a run, made absolute, whatever the working directory of Flower's daemon is."""

from __future__ import annotations

from pathlib import Path


def from_checkout(path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_absolute():
        checkout = Path(__file__).resolve().parents[2]
        folder = (checkout if (checkout / "sims").is_dir() else Path.cwd()) / folder
    return folder.resolve()
