"""What a kept SuperLink's two sides tell each other: where it is, in a file; that a run uses it, by a lock.

The folder is the user's alone: who can write to it says where runs of this user go.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from simulation.apps import CHECKOUT
from simulation.processes import alive, stat

# Of a terminal and its session: no run is another for them.
_PASSING = {"_", "COLUMNS", "INVOCATION_ID", "LINES", "OLDPWD", "PYTEST_CURRENT_TEST", "SHLVL", "TERM", "WINDOWID"}


@dataclass(frozen=True)
class State:
    """A kept SuperLink.

    Attributes:
        keeper: (pid, start time) of the process that owns it.
        leaders: the same of the SuperLink and of the Ray beside it, whose families it is.
        environment: what `flwr` has to be told to mean it.
        told: a digest of what it was started with (`digest`).
        has_ray: whether there is a Ray beside it.
    """

    keeper: tuple[int, str]
    leaders: list[tuple[int, str]]
    environment: dict[str, str]
    told: str
    has_ray: bool

    @property
    def lives(self) -> bool:
        """Whether all of it runs; a later process of the same pid is another."""
        return len(alive(dict([self.keeper, *self.leaders]))) == 1 + len(self.leaders)


def folder() -> Path:
    """The folder of the state, which it makes. Raises ValueError where it is not this user's alone."""
    path = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perfit-fed" / "kept"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not path.is_dir() or path.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ValueError(
            f"the folder of what --keep keeps must be its user's alone (mode 0700), and {str(path)!r} is not; remove it"
        )
    return path


def read(at: Path) -> State | None:
    """What is kept, alive or not; None where nothing is, or it cannot be read."""
    try:
        found = json.loads((at / "state.json").read_text(encoding="utf-8"))
        leaders = [(int(pid), str(since)) for pid, since in found.pop("leaders")]
        pid, since = found.pop("keeper")
        return State(keeper=(int(pid), str(since)), leaders=leaders, **found)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(at: Path, state: State) -> None:
    """Say what is kept."""
    from fed.atomic_write import write_text  # here: the library is imported once a SuperLink starts

    write_text(at / "state.json", json.dumps(asdict(state)))


def forget(at: Path) -> None:
    """Say that nothing is."""
    (at / "state.json").unlink(missing_ok=True)


def process(pid: int) -> tuple[int, str]:
    """A process of this moment: (pid, start time), "" where it has ended."""
    found = stat(pid)
    return pid, found[2] if found else ""


def digest(environment: Mapping[str, str], ray: Mapping[str, int]) -> str:
    """Of all that processes inherit from a SuperLink, so that another environment's is never used by accident.

    Args:
        environment: the command's.
        ray: options of the Ray (`services.ray_head.for_ray`).
    """
    told = {key: value for key, value in environment.items() if key not in _PASSING and not key.startswith("SSH_")}
    parts = [sorted(told.items()), sorted(ray.items()), os.getcwd(), sys.executable, str(CHECKOUT)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@contextmanager
def used(at: Path) -> Iterator[None]:
    """One run uses what is kept, inside. The lock ends with its process. Raises ValueError where another one does."""
    with (at / "in-use").open("w") as file:
        if not _locked(file.fileno()):
            raise ValueError(
                "what --keep keeps serves one run at a time, and another one runs; wait, or leave --keep out"
            )
        yield


def in_use(at: Path) -> bool:
    """Whether a run uses what is kept."""
    with (at / "in-use").open("a") as file:
        return not _locked(file.fileno())


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
