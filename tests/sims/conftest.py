"""The scripts of `sims/` import each other as a script's neighbours do."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType

import pytest


@pytest.fixture
def script() -> Callable[[str], ModuleType]:
    """script("cells.cell") -> the module sims/cells/cell.py."""
    return importlib.import_module
