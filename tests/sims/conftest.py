"""The scripts of `sims/` import each other as a script's neighbours do."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

SIMS = Path(__file__).resolve().parents[2] / "sims"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """script("cells.cell") -> the module sims/cells/cell.py."""
    pytest.importorskip("rich")
    monkeypatch.syspath_prepend(str(SIMS))
    return importlib.import_module
