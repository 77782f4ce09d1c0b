"""What a device has to install: every package that `pip install .` brings, and its size on disk.

    python -m clients.footprint

Counted from the installed packages' own lists of files, following requirements without extras.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DISTRIBUTION = "perfit-fed"


def needed(root: str = DISTRIBUTION) -> dict[str, metadata.Distribution]:
    """Name to distribution of everything that `root` requires, itself included.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    distributions: dict[str, metadata.Distribution] = {}
    todo: list[tuple[str, frozenset[str]]] = [(canonicalize_name(root), frozenset())]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        distributions[name] = metadata.distribution(name)
        for text in distributions[name].requires or []:
            requirement = Requirement(text)
            wanted = requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""})
            )
            if wanted:
                todo.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return dict(sorted(distributions.items()))


def size(distribution: metadata.Distribution) -> int:
    """Bytes on disk of the files that the package lists, compiled caches left out."""
    total = 0
    for file in distribution.files or []:
        path = Path(str(distribution.locate_file(file)))
        if path.suffix != ".pyc" and path.is_file():
            total += path.stat().st_size
    return total


def main() -> int:
    try:
        sizes = {name: (size(d), d.version) for name, d in needed().items()}
    except metadata.PackageNotFoundError as error:
        print(f"error: every requirement must be installed, and {error.name!r} is not; pip install .", file=sys.stderr)
        return 1
    for name, (count, version) in sorted(sizes.items(), key=lambda item: -item[1][0]):
        print(f"{count / 1e6:10.1f} MB  {name} {version}")
    print(f"{sum(count for count, _ in sizes.values()) / 1e6:10.1f} MB  in {len(sizes)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
