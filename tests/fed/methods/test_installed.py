"""What a method needs beyond a plain install is looked for before a run, and named."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import pytest

from fed.methods import check_installed
from fed.settings.methods import METHODS
from fed.settings.settings import Settings

LAMP7 = Path(__file__).resolve().parents[3] / "sims" / "lamp7" / "pyproject.toml"


def refused(settings: Settings) -> bool:
    try:
        check_installed(settings)
    except ValueError as error:
        assert "\n" not in str(error) and "make setup" in str(error)
        return True
    return False


def settings(method: str, **changes: object) -> Settings:
    config = tomllib.loads(LAMP7.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    average = "svd" if method == "fedreft" else "fedavg"
    return Settings.parse(config | {"method": method, "average": average, "strategy": "fedavg"} | changes)


def test_without_peft_the_lora_methods_alone_are_refused(monkeypatch):
    assert [method for method in METHODS if refused(settings(method))] == []
    monkeypatch.setitem(sys.modules, "peft", None)
    assert [method for method in METHODS if refused(settings(method))] == [
        "lora-c",
        "lora-p",
        "oppu",
        "ffa-lora",
        "fedsa-lora",
    ]


@pytest.mark.parametrize("library", ["pyreft", "pyvene"])
def test_without_pyreft_its_engine_alone_is_refused(library, monkeypatch):
    check_installed(settings("perfit", engine="pyreft"))
    monkeypatch.setitem(sys.modules, library, None)
    check_installed(settings("perfit"))
    with pytest.raises(ValueError, match=f"engine 'pyreft' needs pyreft and pyvene, not installed: {library};"):
        check_installed(settings("perfit", engine="pyreft"))
