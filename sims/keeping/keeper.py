"""The process that owns a kept SuperLink and its Ray: it starts them, says where they are, and ends them.

    python -m keeping.keeper FOLDER '{"--num-cpus": 2}' DIGEST

They end by SIGTERM to it, where one of them is lost, where no run has used them for `IDLE` seconds, and where a run
goes on whose command is gone.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from console import leaving
from simulation.processes import alive, end, family
from simulation.superlink import SuperLink, superlink

from keeping import state
from keeping.state import State

EVERY = 0.5  # seconds between looks
IDLE = 600.0  # seconds without a run after which nothing is kept any longer
ORPHAN = 20.0  # seconds that a simulation may take to end when its command has

_TOLD = ("FLWR_HOME", "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT", "FLWR_LOCAL_CONTROL_API_PORT")


def keep(at: Path, ray: dict[str, int], told: str) -> None:
    """Start a SuperLink, say where it is, and have it until it is not to be kept any longer.

    Promise: with it all that it started goes, and what it said (tests/sims/keeping/test_kept.py).
    """
    try:
        with superlink(own=True, ray=ray) as link:
            assert link.watch is not None
            environment = {key: link.environment[key] for key in _TOLD if key in link.environment}
            leaders = [state.process(pid) for pid in link.watch.pids]
            state.write(at, State(state.process(os.getpid()), leaders, environment, told, link.has_ray))
            wait(at, link, dict(leaders))
    finally:
        state.forget(at)


def wait(at: Path, link: SuperLink, leaders: dict[int, str]) -> None:
    """Until one of the leaders is lost, or nobody needs them."""
    assert link.watch is not None
    used = without_command = time.monotonic()
    while len(alive(leaders)) == len(leaders):
        time.sleep(EVERY)
        now = time.monotonic()
        if state.in_use(at):
            used = now
        if state.in_use(at) or not link.watch.simulations:
            without_command = now
        if now - used > IDLE or now - without_command > ORPHAN:
            return


if __name__ == "__main__":
    leaving.once()
    leaving.adopt_orphans()
    try:
        keep(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3])
    finally:
        end({pid: since for pid, since in family(os.getpid()).items() if pid != os.getpid()})
