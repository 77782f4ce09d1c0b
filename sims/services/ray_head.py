"""A Ray of the run's own, started beside the SuperLink instead of by the simulation, some seconds earlier.

It is what Flower would start (all CPUs and GPUs of the machine unless said otherwise, no dashboard), by Ray's own
command, without what a simulation has no use for: the autoscaler, the server for remote clients, and workers that wait
for a driver's first task, since an actor with an environment of its own never gets one of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from console import leaving

ADDRESS = "RAY_ADDRESS"  # of the Ray that a simulation joins, in its environment
# Flower's words for what it starts Ray with, and Ray's own; a Ray that is joined is not asked for them.
_HERE = str(Path(__file__).parent)  # of `ray_hook`
_OPTIONS = {"init-args-num-cpus": "--num-cpus", "init-args-num-gpus": "--num-gpus"}


def for_ray(federation: Mapping[str, object]) -> dict[str, int]:
    """What a federation config says of the Ray to start, as options of `ray start`."""
    return {option: int(str(federation[key])) for key, option in _OPTIONS.items() if key in federation}


def without_ray(federation: Mapping[str, object]) -> dict[str, object]:
    """The rest of a federation config, for a simulation that joins a Ray."""
    return {key: value for key, value in federation.items() if key not in _OPTIONS}


def start(environment: Mapping[str, str], port: int, options: Mapping[str, int], log: Path) -> subprocess.Popen[bytes]:
    """Start Ray; it ends when its process does, and that when this one does.

    Args:
        environment: of Ray and of all its workers.
        port: where it is to listen; its address is that port of this machine.
        options: of `for_ray`.
        log: what it prints.
    """
    words = ["ray", "start", "--head", "--block", f"--port={port}", "--include-dashboard=false", "--no-monitor"]
    words += [f"{option}={value}" for option, value in options.items()]
    told = {key: value for key, value in environment.items() if key != ADDRESS}
    told.setdefault("RAY_prestart_worker_first_driver", "0")
    path = [_HERE, *filter(None, [told.get("PYTHONPATH")])]
    told |= {"RAY_START_HOOK": "ray_hook.without_client_server", "PYTHONPATH": os.pathsep.join(path)}
    with leaving.held(), log.open("wb") as file:
        return subprocess.Popen(
            words,
            env=told,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            executable=shutil.which(words[0], path=told["PATH"]),
            start_new_session=True,
            preexec_fn=leaving.with_parent,
        )
