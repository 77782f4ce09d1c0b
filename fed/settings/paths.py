"""Relative paths of a run, made absolute, whatever the working directory of Flower's daemon is.

A relative path is taken from the checkout that holds `sims/`, or else from the working directory, as on a device.
"""

from __future__ import annotations

from pathlib import Path


def from_checkout(path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_absolute():
        checkout = Path(__file__).resolve().parents[2]
        folder = (checkout if (checkout / "sims").is_dir() else Path.cwd()) / folder
    return folder.resolve()


def data_source(data: str) -> str:
    """Synthetic users as they are named, a folder as an absolute path."""
    return data if data.split(":")[0] == "synthetic" else str(from_checkout(data))


def base_source(base_model: str) -> str:
    """A folder or file as an absolute path where there is one; any other name as it is."""
    path = from_checkout(base_model)
    return str(path) if path.exists() or base_model.endswith(".gguf") else base_model
