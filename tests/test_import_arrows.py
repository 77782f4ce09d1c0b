"""The house's arrows: who may import whom, read from the source.

fed  <-- clients            fed knows no Flower and no Ray; clients and server_strategy never meet;
fed  <-- server_strategy    a device needs no ray, pyreft, datasets or plots when it starts.
"""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGES = ("fed", "clients", "server_strategy", "sims")
HEAVY = {"pyreft", "pyvene", "datasets", "matplotlib"}


def imports(source: str) -> list[tuple[str, bool]]:
    """(top-level package, whether importing the module imports it) of every import, relative ones left out."""
    found = []

    def walk(node: ast.AST, now: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend((alias.name.split(".")[0], now) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module.split(".")[0], now))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found.extend((str(a.value).split(".")[0], now) for a in node.args[:1] if isinstance(a, ast.Constant))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            now = False
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                walk(child, False)
            for child in node.orelse:
                walk(child, now)
            return
        for child in ast.iter_child_nodes(node):
            walk(child, now)

    walk(ast.parse(source), True)
    return found


def imported_by(package: str, *, at_import: bool = False) -> dict[str, set[str]]:
    """File -> top-level packages that it imports; only those that importing the file imports, if asked."""
    files = sorted((CHECKOUT / package).rglob("*.py"))
    assert files, f"no files in {package}"
    return {
        str(file.relative_to(CHECKOUT)): {
            name for name, now in imports(file.read_text(encoding="utf-8")) if now or not at_import
        }
        for file in files
    }


def offenders(package: str, forbidden: set[str], *, at_import: bool = False) -> dict[str, set[str]]:
    found = imported_by(package, at_import=at_import)
    return {file: names & forbidden for file, names in found.items() if names & forbidden}


def test_the_reader_of_imports_sees_them_all_and_tells_when_they_happen():
    source = """
import a.b, c as d
from e.f import g
from . import relative
import importlib
class K:
    import in_class
def f():
    import late
    importlib.import_module("by_name.x")
if TYPE_CHECKING:
    import typed
else:
    import typed_else
try:
    import tried
except ImportError:
    x = lambda: __import__("dunder")
importlib.import_module("at_once")
"""
    found = dict(imports(source))
    assert {name for name, now in found.items() if now} == {
        "a", "c", "e", "importlib", "in_class", "typed_else", "tried", "at_once",
    }  # fmt: skip
    assert {name for name, now in found.items() if not now} == {"late", "by_name", "typed", "dunder"}


def test_the_packages_do_import_what_they_are_made_of():
    assert "torch" in imported_by("fed")["fed/training/train.py"]
    assert {"flwr", "fed"} <= imported_by("clients")["clients/app.py"]
    assert {"flwr", "fed"} <= imported_by("server_strategy")["server_strategy/app.py"]


def test_the_library_knows_no_flower_no_ray_and_no_application():
    assert offenders("fed", {"flwr", "ray", "clients", "server_strategy"}) == {}


def test_clients_and_the_server_never_import_each_other():
    assert offenders("clients", {"server_strategy"}) == {}
    assert offenders("server_strategy", {"clients"}) == {}


def test_a_device_starts_without_the_simulator_the_reference_engine_and_plots():
    assert offenders("clients", HEAVY | {"ray"}, at_import=True) == {}
    assert offenders("fed", HEAVY, at_import=True) == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_imports_the_simulations(package):
    assert offenders(package, {"sims"}) == {}


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_imports_the_tests(package):
    assert offenders(package, {"tests", "pytest", "hypothesis"}) == {}
