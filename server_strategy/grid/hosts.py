"""The hosts of a Ray cluster: who they are, and whether all of them see the disk that the run's folder is on.

Flower hands a node's message to any actor that is free, on any host. So the host that tests a user need not be the one
that trained it, and the vault of the run's simulated devices has to be on a disk that all hosts share. Deliberately
absent: holding a node to a host, for which Flower's pool has no place.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from typing import Any

from fed.settings.paths import from_checkout

ANSWER = 60.0  # seconds that a host has to look for a file; its Ray starts a process for that


def names() -> list[str]:
    """The addresses of the hosts of the Ray cluster that this process is a driver of; empty where it is of none."""
    return [str(host["NodeManagerAddress"]) for host in _hosts()]


def apart(written: str) -> str:
    """Why the hosts of the Ray cluster do not share the run's folder, in one line; "" where they do, or of one host.

    A file that this process writes there, under a name that was never used, is looked for by a task on each host.

    Args:
        written: the folder as the settings have it, relative or absolute, which each host reads in its own way.
    """
    hosts = _hosts()
    if len(hosts) < 2:
        return ""
    folder = from_checkout(written)
    token = folder / f".shared-{secrets.token_hex(8)}"
    token.touch()
    try:
        blind = sorted(name for name, sees in _asked(hosts, written, token.name).items() if not sees)
    finally:
        token.unlink()
    if not blind:
        return ""
    return (
        f"output-dir must be on a disk that all {len(hosts)} hosts of the Ray cluster share, under the same path, for "
        f"the vaults are there, and {', '.join(blind)} cannot see {folder}; mount it there, or set output-dir to a "
        "folder that is shared (sims/CLUSTER.md)"
    )


def _hosts() -> list[dict[str, Any]]:
    """Ray's own account of the hosts that are alive and may compute."""
    ray: Any = sys.modules.get("ray")  # loaded where Ray's driver is, and nowhere else
    if ray is None or not ray.is_initialized():
        return []
    return [host for host in ray.nodes() if host["Alive"] and host["Resources"].get("CPU")]


def _asked(hosts: list[dict[str, Any]], folder: str, file: str) -> dict[str, bool]:
    """Address of a host -> whether a process there sees the file in the folder; no answer is no."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray: Any = sys.modules["ray"]
    look: Callable[..., Any] = ray.remote(num_cpus=0, max_retries=0)(_sees).options
    answers = {
        look(scheduling_strategy=NodeAffinitySchedulingStrategy(host["NodeID"], soft=False)).remote(folder, file): str(
            host["NodeManagerAddress"]
        )
        for host in hosts
    }
    done, _ = ray.wait(list(answers), num_returns=len(answers), timeout=ANSWER)
    seen = dict.fromkeys(answers.values(), False)
    for answer in done:
        try:
            seen[answers[answer]] = bool(ray.get(answer))
        except ray.exceptions.RayError:  # the host died meanwhile
            continue
    return seen


def _sees(folder: str, file: str) -> bool:
    path = from_checkout(folder)
    list(path.glob("*"))  # a network's file system may remember for a while that a file was not there
    return (path / file).is_file()
