"""What a simulation's processes are told by their environment, and where they keep what is theirs for a run.

Everything of a simulation talks over loopback and keeps its files in one folder that goes with it, whatever the machine
is like: behind a web proxy, with a long or shared temporary folder, with a home that cannot be written to.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

FLOWERS = "perfit-flwr-"  # how the name of a run's folder begins
LOOPBACK = ("127.0.0.1", "localhost", "::1")
# A socket's path has 107 characters at most (sun_path), and those of Ray begin 90 after this folder.
LONGEST_FOLDER = 16
SHORT_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm")


def without_proxy(environment: Mapping[str, str], hosts: tuple[str, ...] = LOOPBACK) -> dict[str, str]:
    """The environment in which these hosts are asked directly: a proxy for the web is no way to one's own machine.

    Promise: a run behind a proxy that refuses loopback ends as any other (tests/sims/simulation/test_environment.py).
    """
    before = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    named = [host.strip() for host in before.split(",") if host.strip()]
    direct = ",".join([*(host for host in hosts if host not in named), *named])
    return {**environment, "no_proxy": direct, "NO_PROXY": direct}


def ray_cluster(environment: Mapping[str, str]) -> str:
    """The address of the Ray cluster that runs go to (RAY_ADDRESS); "" where each starts a Ray of its own.

    Raises ValueError where nobody answers there.
    """
    address = environment.get("RAY_ADDRESS", "")
    if named := re.fullmatch(r"\[?([^/\[\]]+)\]?:(\d{1,5})", address):
        try:
            socket.create_connection((named[1], int(named[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise ValueError(
                f"RAY_ADDRESS must be the host:port of a Ray cluster's head, got {address!r}, where nobody answers "
                f"({error}); start one (sims/CLUSTER.md), or unset it"
            ) from None
    return address


def run_folder() -> Path:
    """A new folder for one run, only the owner's, short enough for the sockets in it.

    It is in the temporary folder ($TMPDIR), or where that is too long in the first of `SHORT_FOLDERS` that one may
    write to. Raises ValueError where there is none.
    """
    own = tempfile.gettempdir()
    for parent in (own, *SHORT_FOLDERS):
        if len(parent) <= LONGEST_FOLDER and os.access(parent, os.W_OK | os.X_OK):
            return Path(tempfile.mkdtemp(prefix=FLOWERS, dir=parent))
    raise ValueError(
        f"a folder for sockets must have a path of {LONGEST_FOLDER} characters at most, got TMPDIR={own!r}, "
        f"and none of {', '.join(SHORT_FOLDERS)} can be written to; set TMPDIR to a short path"
    )


def has_cache(environment: Mapping[str, str]) -> bool:
    """Whether the folder of caches, or the nearest folder above it that there is, can be written to."""
    folder = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perfit-fed"
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def of_flower(environment: Mapping[str, str], home: Path | None) -> dict[str, str]:
    """The environment of Flower's processes and Ray's; what the user has set stays.

    Args:
        environment: the command's own.
        home: the run's folder, which becomes Flower's home and everybody's temporary folder; None: the user has one.
    """
    told = without_proxy(environment)
    told["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{told.get('PATH', '')}"
    told.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    told.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    told.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Nodes that say the same of their users in the same seconds are different lines; Ray would show the first alone.
    told.setdefault("RAY_DEDUP_LOGS", "0")
    told.setdefault("RAY_worker_niceness", "0")  # Ray's 15 leaves the run's own work a 30th of a core that others want
    # Where the command is killed, Ray's agents wait so long for a Ray that is gone before they go too; Ray's own: 60.
    told.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "10")
    told.setdefault("PYTHONUNBUFFERED", "1")
    told.setdefault("FLWR_SUPEREXEC_TASK_POLL_INTERVAL", "0.05")  # seconds until a run that was given begins; not 1
    if home is not None:
        told |= {"FLWR_HOME": str(home), "RAY_TMPDIR": str(home), "TMPDIR": str(home)}
        if not has_cache(told):
            told["XDG_CACHE_HOME"] = str(home / "cache")  # made for this run and gone with it
    return told
