"""A kept SuperLink, as a command has it: found and used, or started; and ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from console import leaving
from services.flower_cli import flower_cli
from simulation.apps import CHECKOUT, SIMS
from simulation.environment import of_flower
from simulation.processes import alive, end, families, offspring
from simulation.superlink import PATIENCE, SuperLink
from simulation.watch import Elsewhere, Watch

from keeping import state
from keeping.state import State


@contextmanager
def kept_superlink(*, ray: Mapping[str, int], meanwhile: Callable[[], None]) -> Iterator[SuperLink]:
    """What is kept, for one run; started where it is not there, or was started with anything else.

    Where the body raises, the run may go on without its command, so that nothing is kept any longer.

    Promise: a run on it is that of any other bit for bit (tests/sims/keeping/test_kept.py, by night).

    Args:
        ray, meanwhile: as of `simulation.superlink.superlink`.
    Raises:
        ValueError: a run uses it, or a SuperLink of the user's own is meant.
    """
    if "FLWR_HOME" in os.environ:
        raise ValueError("--keep keeps a SuperLink of its own, and FLWR_HOME names one that stays anyway; unset one")
    at = state.folder()
    told = state.digest(os.environ, ray)
    with state.used(at):
        found = state.read(at)
        if found is None or not found.lives or found.told != told:
            stop(at)
            process = _start(at, ray, told)
            meanwhile()
            found = _wait(at, process)
        else:
            meanwhile()
        environment = of_flower(os.environ, None) | found.environment
        watch = Watch(Elsewhere(*found.leaders[0]))
        for leader in found.leaders[1:]:
            watch.add(Elsewhere(*leader))
        watch.start()
        try:
            with flower_cli(environment) as flower:
                yield SuperLink(environment, flower, watch, found.has_ray)
        except BaseException:
            stop(at)
            raise
        finally:
            watch.finish()


def _start(at: Path, ray: Mapping[str, int], told: str) -> subprocess.Popen[bytes]:
    """The keeper, which outlives this process."""
    path = os.pathsep.join([str(SIMS), str(CHECKOUT), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "keeping.keeper", str(at), json.dumps(dict(ray)), told]
    with leaving.held(), (at / "keeper.log").open("wb") as log:
        return subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(at: Path, process: subprocess.Popen[bytes]) -> State:
    """What the keeper says once it has started all. Raises ValueError where it ends, or never says it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if (found := state.read(at)) is not None:
            return found
        time.sleep(0.05)
    if process.poll() is None:
        process.terminate()
    raise ValueError(f"what --keep keeps did not start: {(at / 'keeper.log').read_text()[-500:]}")


def stop(at: Path | None = None) -> bool:
    """End what is kept, dead or alive; whether there was anything.

    Promise: nothing of it is left, no process, port or folder (tests/sims/keeping/test_kept.py, by night).
    """
    at = at or state.folder()
    found = state.read(at)
    if found is None:
        return False
    end(dict([found.keeper]), patience=20.0)
    end(offspring(*(pid for pid, _ in found.leaders)), patience=0.0)
    if home := found.environment.get("FLWR_HOME"):
        shutil.rmtree(home, ignore_errors=True)
    state.forget(at)
    return True


def spared() -> dict[int, str]:
    """pid -> start time of what is kept, which a command that ends all its descendants leaves alone."""
    found = None
    with suppress(ValueError, OSError):  # nothing of this user's can be kept there
        found = state.read(state.folder())
    if found is None or not alive(dict([found.keeper])):
        return {}
    return families([found.keeper[0], *(pid for pid, _ in found.leaders)])
