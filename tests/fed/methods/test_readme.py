"""fed/methods/README.md, "Add a method": its file and its registry line, taken from the text, run through the app."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import fed.methods
from fed.privacy.tensor_files import read_tensors
from fed.privacy.vault import PERSONAL
from fed.settings import methods as registry
from tests.integration.in_process import federate

README = (Path(fed.methods.__file__).parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def blocks():
    return re.findall(r"```python\n(.*?)```", README.split("\n## Add a method\n")[1], re.DOTALL)


def test_a_method_is_one_file_and_one_registry_line(blocks, settings, tmp_path, monkeypatch):
    code, line = blocks
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "rank_one.py").write_text(code)
    monkeypatch.setattr(fed.methods, "__path__", [*fed.methods.__path__, str(tmp_path / "methods")])
    monkeypatch.setitem(sys.modules, "fed.methods.rank_one", None)
    del sys.modules["fed.methods.rank_one"]
    ((name, entry),) = eval(f"{{{line}}}", vars(registry)).items()
    monkeypatch.setitem(registry.METHODS, name, entry)
    report, _, folder = federate(settings(method=name, max_new_tokens=0), 2)
    assert (report["method"], report["parameters"]["stage1"]) == ("rank-one", 0)
    assert report["parameters"]["stage2"] == 2 * (2 * 32 + 1)  # two layers of R and W (1, 32) and b (1)
    vaults = sorted((folder / "vault").glob(f"*/{PERSONAL}"))
    assert vaults
    for path in vaults:
        assert {n: tuple(t.shape) for n, t in read_tensors(path)[0].items()}["R"] == (2, 1, 32)
    arms = report["arms"]
    assert arms["stage1"] is None and arms["stage1+2"]["loss_per_token"] < arms["base"]["loss_per_token"]


def test_the_table_of_methods_names_every_method_of_the_registry():
    table = README.split("\n## ")[0]
    first_column = "\n".join(row.split("|")[1] for row in table.split("\n") if row.startswith("|"))
    assert set(registry.METHODS) | {"method"} == set(re.findall(r"`([a-z0-9-]+)`", first_column))


def test_the_table_of_overrides_names_every_hook_of_the_interface():
    table = README.split("\n## Add a method\n")[1].split("```")[0]
    named = set(re.findall(r"`([a-z_]+)`", "\n".join(row.split("|")[1] for row in table.split("\n") if "|" in row)))
    method = vars(fed.methods.Method)
    kept = {"plan", "draws"}  # by the settings alone, the same for every method
    called = {"train_collective", "train_private"}  # by a node; they hand on to `fit_collective` and `fit_private`
    derived = {"cost"}  # from the shapes
    assert named == {name for name in method if not name.startswith("_")} - kept - called - derived
