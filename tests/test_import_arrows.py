"""The house's arrows: who may import whom, read from the source, and how large a file and a folder may be.

fed  <-- clients            fed knows no Flower and no Ray; clients and server_strategy never meet;
fed  <-- server_strategy    a device needs no ray, pyreft, datasets or plots when it starts.

Within fed, server_strategy and sims, packages stand on floors: an arrow points down, and only to what `FLOORS` lists.
"""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
HOUSES = ("fed", "clients", "server_strategy", "sims")
HEAVY = {"pyreft", "pyvene", "datasets", "matplotlib"}
COMMANDS = "commands"  # the files of sims/ itself, which users call by path
MOST_LINES = {"fed": 250, "clients": 250, "server_strategy": 250, "sims": 300}
MOST_FILES = 10

# The lowest floor first. package or module: the lower ones that it may import.
FLOORS: dict[str, list[dict[str, set[str]]]] = {
    "fed": [
        {"randomness": set(), "atomic_write": set(), "plain_text": set(), "statistics": set(), "strict_json": set(),
         "threads": set(),
         "plain_cells": set(), "number_row": set(), "cache": set(), "weak_memory": set()},
        {"base": {"atomic_write", "cache", "weak_memory"}, "lamp": {"atomic_write", "cache"},
         "privacy": {"atomic_write"}},
        {"edits": {"base"}, "resuming": {"privacy"}},
        {
            "averages": {"edits"},
            "communication": {"atomic_write", "base", "edits", "plain_cells", "privacy", "randomness", "resuming"},
            "forward": {"base", "edits", "weak_memory"},
        },
        {
            "answering": {"base", "edits", "forward", "lamp", "statistics"},
            "training": {"base", "edits", "forward", "randomness"},
        },
        {
            "prompts": {"answering", "base", "edits", "forward", "lamp", "privacy", "randomness"},
            "settings": {"answering", "averages", "base", "communication", "edits", "lamp", "training"},
        },
        {
            "exploration": {"base", "edits", "forward", "lamp", "prompts", "randomness", "statistics"},
            "methods": {
                "answering", "averages", "base", "communication", "edits", "forward", "lamp", "randomness", "settings",
                "training",
            },
            "policy": {
                "answering", "atomic_write", "base", "edits", "forward", "lamp", "settings",
            },
        },
    ],
    "server_strategy": [
        {"screening": set()},
        {"grid": {"screening"}},
        {"personalization": {"grid"}, "report": {"grid"}, "rounds": {"grid", "screening"}},
        {"checkpoint": {"grid", "report"}},
        {"stage1": {"checkpoint", "grid", "personalization", "report", "rounds"}},
        {"run": {"checkpoint", "grid", "personalization", "report", "rounds", "screening", "stage1"}},
        {"app": {"grid", "report", "run"}},
    ],
    "sims": [
        {"console": set(), "corpora": set()},
        {"services": {"console"}},
        {"simulation": {"console", "services"}},
        {
            "bench": {"console", "simulation"},
            "cells": {"console", "simulation"},
            "farm": {"console", "services", "simulation"},
            "job": {"console", "simulation"},
            "keeping": {"console", "services", "simulation"},
            "kills": {"console", "simulation"},
        },
        {
            "communication": {"cells", "console", "simulation"},
            "exploration": {"cells", "console", "simulation"},
            "gpu": {"bench", "console"},
            "scores": {"cells", "console", "simulation"},
        },
        {"averages": {"cells", "console", "exploration", "simulation"}},
        {COMMANDS: {
            "averages", "bench", "cells", "communication", "console", "corpora", "exploration", "farm", "job",
            "keeping", "kills", "scores", "services", "simulation",
        }},
    ],
}  # fmt: skip


class Import(NamedTuple):
    """names: what the statement may mean, the longest first ("a.b.c" and "a.b" for `from a.b import c`);
    at_once: whether importing the module imports it."""

    names: tuple[str, ...]
    at_once: bool

    @property
    def top(self) -> str:
        return self.names[-1].split(".")[0]


def imports(source: str, package: str = "") -> list[Import]:
    """Every import of a module of `package`, wherever in its source it stands."""
    seen: list[Import] = []

    def walk(node: ast.AST, at_once: bool) -> None:
        if isinstance(node, ast.Import):
            seen.extend(Import((alias.name,), at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            seen.extend(Import((f"{origin}.{alias.name}", origin), at_once) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            seen.extend(Import((str(a.value),), at_once) for a in node.args[:1] if isinstance(a, ast.Constant))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            at_once = False
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                walk(child, False)
            for child in node.orelse:
                walk(child, at_once)
            return
        for child in ast.iter_child_nodes(node):
            walk(child, at_once)

    walk(ast.parse(source), True)
    return seen


def files_of(house: str) -> list[Path]:
    files = sorted((CHECKOUT / house).rglob("*.py"))
    assert files, f"no files in {house}"
    return files


def sources_of(house: str) -> dict[str, str]:
    """Module name -> source, by the names they import each other by: those of sims leave out `sims`."""
    root = CHECKOUT / house if house == "sims" else CHECKOUT
    return {
        ".".join(file.relative_to(root).with_suffix("").parts): file.read_text(encoding="utf-8")
        for file in files_of(house)
    }


def arrows(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Module -> the modules among `sources` that it imports, at once or later. A package stands for its __init__."""
    places = {name.removesuffix(".__init__"): name for name in sources}
    pointed: dict[str, set[str]] = {}
    for name, source in sources.items():
        meant = (next((n for n in one.names if n in places), None) for one in imports(source, name.rpartition(".")[0]))
        pointed[name.removesuffix(".__init__")] = {one for one in meant if one} - {name.removesuffix(".__init__")}
    return pointed


def room(module: str, house: str) -> str:
    """The package of a module, or the module itself where it lies in no package; a command of sims is a command."""
    parts = module.split(".") if house == "sims" else module.split(".")[1:]
    if house == "sims" and len(parts) == 1 and parts[0] not in rooms_of("sims"):
        return COMMANDS
    return parts[0] if parts else house


def rooms_of(house: str) -> dict[str, set[str]]:
    """Every package that FLOORS lists, and what it may import."""
    return {name: allowed for floor in FLOORS[house] for name, allowed in floor.items()}


def between_rooms(pointed: Mapping[str, set[str]], house: str) -> dict[str, set[str]]:
    """Module arrows as arrows between packages, those within one left out."""
    rooms: dict[str, set[str]] = {}
    for module, targets in pointed.items():
        here = rooms.setdefault(room(module, house), set())
        here.update({room(target, house) for target in targets} - {room(module, house)})
    return rooms


def circles(pointed: Mapping[str, set[str]]) -> list[set[str]]:
    """The sets of nodes that reach each other along arrows."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(pointed.get(start, ()))
        while ahead:
            node = ahead.pop()
            if node not in seen:
                seen.add(node)
                ahead.extend(pointed.get(node, ()))
        return seen

    reach = {node: reached(node) for node in pointed}
    groups = [{node, *(other for other in reach[node] if node in reach.get(other, ()))} for node in sorted(pointed)]
    return [group for i, group in enumerate(groups) if len(group) > 1 and group not in groups[:i]]


def forbidden_arrows(rooms: Mapping[str, set[str]], floors: list[dict[str, set[str]]]) -> Iterator[str]:
    """Every arrow that the floors do not list, and every package that stands on none."""
    allowed = {name: below for floor in floors for name, below in floor.items()}
    for name, targets in rooms.items():
        if name not in allowed:
            yield f"{name} stands on no floor"
        else:
            yield from (f"{name} -> {target}" for target in sorted(targets - allowed[name]))


def arrows_up(floors: list[dict[str, set[str]]]) -> list[str]:
    """What a table of floors itself gets wrong: an arrow to the same floor or a higher one, or to no package."""
    height = {name: i for i, floor in enumerate(floors) for name in floor}
    return [
        f"{name} -> {target}"
        for i, floor in enumerate(floors)
        for name, below in floor.items()
        for target in sorted(below)
        if height.get(target, len(floors)) >= i
    ]


def offenders(house: str, forbidden: set[str], *, at_import: bool = False) -> dict[str, set[str]]:
    """File -> forbidden top-level packages that it imports; only those that importing the file imports, if asked."""
    tops = {
        name: {one.top for one in imports(source, name.rpartition(".")[0]) if one.at_once or not at_import}
        for name, source in sources_of(house).items()
    }
    return {name: names & forbidden for name, names in tops.items() if names & forbidden}


# The checker itself, on made-up sources


def test_the_reader_of_imports_sees_them_all_and_tells_when_they_happen():
    source = """
import a.b, c as d
from e.f import g
from . import beside
from ..up import over
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
    seen = imports(source, "top.mid")
    assert {one.names[0] for one in seen if one.at_once} == {
        "a.b", "c", "e.f.g", "top.mid.beside", "top.up.over", "importlib", "in_class", "typed_else", "tried", "at_once",
    }  # fmt: skip
    assert {one.names[0] for one in seen if not one.at_once} == {"late", "by_name.x", "typed", "dunder"}
    assert {one.top for one in seen if one.names[0].startswith(("a.", "e.", "top."))} == {"a", "e", "top"}


def test_an_arrow_goes_to_the_module_that_is_meant_whatever_way_it_is_imported():
    sources = {
        "fed.a.__init__": "from fed.a.one import f",
        "fed.a.one": "from fed.b import two\nfrom fed.b.two import name\nimport torch",
        "fed.a.three": "def late():\n    from fed import a\n    import fed.b.two",
        "fed.b.two": "from ..a import one\nfrom . import missing",
        "fed.b.__init__": "",
    }
    assert arrows(sources) == {
        "fed.a": {"fed.a.one"},
        "fed.a.one": {"fed.b.two"},
        "fed.a.three": {"fed.a", "fed.b.two"},
        "fed.b.two": {"fed.a.one", "fed.b"},
        "fed.b": set(),
    }


def test_a_circle_is_found_between_modules_and_between_packages_even_through_a_late_import():
    sources = {
        "fed.a.x": "import fed.b.y",
        "fed.b.y": "from fed.c.z import f",
        "fed.c.z": "",
        "fed.c.w": "def f():\n    from fed.a.x import g",
    }
    pointed = arrows(sources)
    assert circles(pointed) == []
    assert circles(between_rooms(pointed, "fed")) == [{"a", "b", "c"}]
    assert circles(arrows(sources | {"fed.c.z": "from fed.a import x"})) == [{"fed.a.x", "fed.b.y", "fed.c.z"}]
    assert circles(arrows(sources | {"fed.a.x": ""})) == []


def test_an_arrow_that_is_not_listed_a_package_on_no_floor_and_an_arrow_up_are_found():
    floors = [{"low": set()}, {"mid": {"low"}}, {"high": {"low"}}]
    assert list(forbidden_arrows({"low": set(), "mid": {"low"}, "high": {"low"}}, floors)) == []
    assert list(forbidden_arrows({"low": {"mid"}}, floors)) == ["low -> mid"]
    assert list(forbidden_arrows({"high": {"low", "mid"}}, floors)) == ["high -> mid"]
    assert list(forbidden_arrows({"new": set()}, floors)) == ["new stands on no floor"]
    assert arrows_up(floors) == []
    assert arrows_up([{"low": {"high"}, "beside": {"low"}}, {"high": {"nowhere"}}]) == [
        "low -> high", "beside -> low", "high -> nowhere",
    ]  # fmt: skip


def test_a_module_belongs_to_its_package_and_a_command_of_sims_to_the_commands():
    assert room("fed.lamp.synthetic.tasks", "fed") == room("fed.lamp", "fed") == "lamp"
    assert room("fed.randomness", "fed") == "randomness" and room("server_strategy.run", "server_strategy") == "run"
    assert room("cells.plan", "sims") == room("cells", "sims") == "cells" and room("run", "sims") == COMMANDS
    rooms = between_rooms({"cells.plan": {"run"}, "run": {"cells.plan", "search"}, "search": set()}, "sims")
    assert rooms == {"cells": {COMMANDS}, COMMANDS: {"cells"}}


# The house


def test_the_packages_do_import_what_they_are_made_of():
    tops = {
        name: {one.top for one in imports(source)}
        for house in HOUSES
        for name, source in sources_of(house).items()
    }  # fmt: skip
    assert "torch" in tops["fed.training.train"]
    assert {"flwr", "fed"} <= tops["clients.app"] and {"flwr", "fed"} <= tops["server_strategy.app"]
    assert "fed.lamp.records" in arrows(sources_of("fed"))["fed.lamp.cohorts"]
    assert "console.command" in arrows(sources_of("sims"))["run"]


@pytest.mark.parametrize("house", FLOORS)
def test_packages_import_only_the_lower_ones_that_are_listed(house):
    assert arrows_up(FLOORS[house]) == []
    rooms = between_rooms(arrows(sources_of(house)), house)
    rooms.pop(house, None)  # the docstring of the house itself
    assert list(forbidden_arrows(rooms, FLOORS[house])) == []


@pytest.mark.parametrize("house", HOUSES)
def test_no_modules_and_no_packages_import_each_other_in_a_circle(house):
    pointed = arrows(sources_of(house))
    assert circles(pointed) == []
    if house in FLOORS:
        assert circles(between_rooms(pointed, house)) == []


def test_no_command_of_sims_imports_another():
    pointed = arrows(sources_of("sims"))
    commands = {module for module in pointed if room(module, "sims") == COMMANDS}
    assert {module: pointed[module] & commands for module in commands if pointed[module] & commands} == {}


@pytest.mark.parametrize("house", HOUSES)
def test_a_file_is_read_in_one_sitting_and_a_folder_is_seen_at_once(house):
    files = files_of(house)
    lines = {str(file.relative_to(CHECKOUT)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    assert {file: count for file, count in lines.items() if count > MOST_LINES[house]} == {}
    folders = {file.parent for file in files} - {CHECKOUT / "sims"}
    crowded = {
        str(folder.relative_to(CHECKOUT)): count
        for folder in folders
        if (count := sum(file.parent == folder and file.name != "__init__.py" for file in files)) > MOST_FILES
    }
    assert crowded == {}


def test_the_library_knows_no_flower_no_ray_and_no_application():
    assert offenders("fed", {"flwr", "ray", "clients", "server_strategy"}) == {}


def test_clients_and_the_server_never_import_each_other():
    assert offenders("clients", {"server_strategy"}) == {}
    assert offenders("server_strategy", {"clients"}) == {}


def test_a_device_starts_without_the_simulator_the_reference_engine_and_plots():
    assert offenders("clients", HEAVY | {"ray"}, at_import=True) == {}
    assert offenders("fed", HEAVY, at_import=True) == {}


def test_a_run_starts_its_superlink_before_the_library_and_torch_are_imported():
    sources = sources_of("sims")
    begun, ahead = set(), ["run"]
    while ahead:
        name = ahead.pop()
        begun.add(name)
        at_once = [n for one in imports(sources[name]) if one.at_once for n in one.names]
        assert not {n.split(".")[0] for n in at_once} & {"fed", "torch", "server_strategy", "clients"}, name
        ahead.extend({n for n in at_once if n in sources} - begun)
    assert {"console.command", "simulation.apps"} <= begun


@pytest.mark.parametrize("house", HOUSES)
def test_nothing_imports_the_simulations(house):
    """Those of sims import each other as a script's neighbours do, by names without `sims`, which nobody else may."""
    neighbours = {name.split(".")[0] for name in sources_of("sims")}
    assert {"run", "cells", "console"} <= neighbours
    assert offenders(house, {"sims"} if house == "sims" else {"sims", *neighbours}) == {}


@pytest.mark.parametrize("house", HOUSES)
def test_nothing_imports_the_tests(house):
    assert offenders(house, {"tests", "pytest", "hypothesis"}) == {}
