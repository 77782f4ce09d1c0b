"""What the documents promise: packages that name their files, paths that exist, lines that fit a screen."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
HOUSES = ("fed", "clients", "server_strategy", "sims")
PACKAGES = sorted(
    str(file.parent.relative_to(CHECKOUT)) for house in HOUSES for file in (CHECKOUT / house).rglob("__init__.py")
)
HIDDEN = ("node_modules", "build", "dist", "runs", "shared")  # and whatever starts with a dot
DOCUMENTS = sorted(
    str(relative)
    for relative in (file.relative_to(CHECKOUT) for file in CHECKOUT.rglob("*.md"))
    if not any(part.startswith(".") or part in HIDDEN for part in relative.parts)
)
COLUMNS = 120


def named_in(docstring: str) -> list[str]:
    """The first word of each line `name   what it is`, with three spaces or more between them."""
    return re.findall(r"^(\S+) {3,}\S", docstring, re.MULTILINE)


def paths_in(text: str) -> list[str]:
    """The paths of this checkout that stand in backticks: `sims/run.py sims/lamp7` has two."""
    code = re.findall(r"`([^`\n]+)`", text)
    words = (word.split("::")[0].rstrip(".,:;") for span in code for word in span.split())
    return [word for word in words if re.match(rf"(?:{'|'.join((*HOUSES, 'tests'))})/", word)]


def too_long(text: str) -> list[int]:
    """Lines past the limit that could be broken: rows of a table and lone URLs cannot."""
    return [
        number
        for number, line in enumerate(text.split("\n"), 1)
        if len(line) > COLUMNS and not line.lstrip().startswith(("|", "http://", "https://"))
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_s_docstring_names_each_of_its_files_and_rooms_and_nothing_else(package):
    folder = CHECKOUT / package
    docstring = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")), clean=False) or ""
    files = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    rooms = {f"{file.parent.name}/" for file in folder.glob("*/__init__.py")}
    assert sorted(named_in(docstring)) == sorted(files | rooms)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_in_a_document_exist(document):
    paths = paths_in((CHECKOUT / document).read_text(encoding="utf-8"))
    assert [path for path in paths if not any(CHECKOUT.glob(path.rstrip("/")))] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_lines_of_a_document_fit(document):
    assert too_long((CHECKOUT / document).read_text(encoding="utf-8")) == []


def test_the_readers_see_what_they_should():
    docstring = "Title.\n\none      what it is\nrooms/   more\n    no   line\nprose here\n"
    assert named_in(docstring) == ["one", "rooms/"]
    assert paths_in("`fed/a.py`, `python sims/run.py sims/b -c 'x=1'` and fed/c.py; `tests/d.py::test`, `fedx/e`") == [
        "fed/a.py", "sims/run.py", "sims/b", "tests/d.py",
    ]  # fmt: skip
    assert too_long(f"{'x' * 120}\n{'x' * 121}\n| {'x' * 121}\n") == [2]
    assert {"README.md", "clients/README.md"} <= set(DOCUMENTS) and {"fed", "fed/lamp/synthetic"} <= set(PACKAGES)


def test_the_readme_is_read_in_one_sitting():
    assert len((CHECKOUT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
