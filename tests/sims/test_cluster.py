"""Runs on a Ray cluster: two hosts in network namespaces, each with a disk of its own, as sims/CLUSTER.md has it.

Only as root with iproute2. The first host is the hub, where the head and the command are; the second is a device's
namespace. Its disk is its own where a tmpfs lies over a folder: over all temporary files of Ray and Flower, its cache,
and one that is not shared.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from farm import network_namespaces
from farm.network_namespaces import SERVER, Link
from simulation import processes
from simulation.apps import settings_of, words
from simulation.environment import ray_cluster
from simulation.in_process import run_here

REPOSITORY = Path(__file__).resolve().parents[2]
WHY_NOT = network_namespaces.problem()
real = pytest.mark.skipif(bool(WHY_NOT), reason=f"no network namespaces here: {WHY_NOT}")
HEAD, SECOND = f"{SERVER}:6379", "10.66.0.2"
RAY = Path(sys.executable).parent / "ray"


class Cluster:
    """Two hosts; `root` is on a disk that they share, but for the folders `apart` and `cache`."""

    def __init__(self, spaces: network_namespaces.Namespaces, root: Path) -> None:
        self.root, self.second = root, spaces.join()
        self.head = Link(spaces.hub, spaces.hub, "")
        self._started: list[subprocess.Popen[bytes]] = []
        self._sockets = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # a socket's path is a short one
        for name in ("apart", "cache", "shared"):
            (root / name).mkdir()

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "PYTHONPATH": str(REPOSITORY),
            "PERFIT_CACHE": str(self.root / "cache"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "RAY_TMPDIR": str(self._sockets),
            "RAY_memory_usage_threshold": "0.99",
            "OMP_NUM_THREADS": "1",
        }

    def start(self) -> None:
        size = ["--num-cpus=1", "--num-gpus=0", f"--object-store-memory={80 << 20}", "--disable-usage-stats", "--block"]
        head = ["--head", f"--node-ip-address={SERVER}", "--port=6379", "--include-dashboard=false"]
        self._host(self.head.command([str(RAY), "start", *head, f"--temp-dir={self._sockets}", *size]))
        self._wait(1)
        folders = [str(self._sockets), str(self.root / "apart"), str(self.root / "cache")]
        own = "".join(f"mount -t tmpfs none {folder}; " for folder in folders)  # `ip netns exec` unshared the mounts
        joins = [str(RAY), "start", f"--address={HEAD}", f"--node-ip-address={SECOND}", *size]
        self._host(self.second.command(["bash", "-ec", f'{own} exec "$@"', "bash", *joins]))
        self._wait(2)

    def _host(self, command: list[str]) -> None:
        with (self.root / f"host{len(self._started)}.log").open("wb") as log:
            self._started.append(
                subprocess.Popen(command, env=self.environment(), stdout=log, stderr=log, start_new_session=True)
            )

    def _wait(self, hosts: int) -> None:
        code = f"import ray; ray.init({HEAD!r}, log_to_driver=False); print(sum(n['Alive'] for n in ray.nodes()))"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            asked = subprocess.run(
                self.head.command([sys.executable, "-c", code]), env=self.environment(), capture_output=True, text=True
            )
            if asked.stdout.strip().endswith(str(hosts)):
                return
        raise AssertionError(f"{hosts} hosts: {asked.stdout}{asked.stderr[-2000:]}")

    def run(self, config: dict[str, object], heard: list[str], on_line=lambda line: None) -> int:
        """`sims/run.py` on both hosts; its exit code."""
        spelled = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
        command = [sys.executable, str(REPOSITORY / "sims/run.py"), str(REPOSITORY / "sims/lamp7"), "-c", spelled]
        command += ["--federation-config", "num-supernodes=2 client-resources-num-cpus=1"]
        environment = {key: value for key, value in self.environment().items() if key != "RAY_TMPDIR"}
        started = subprocess.Popen(
            self.head.command(command),
            env=environment | {"RAY_ADDRESS": HEAD, "TMPDIR": str(self._sockets)},  # Flower's copy of the app, too
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert started.stdout is not None
        for line in started.stdout:
            heard.append(line.rstrip("\n"))
            on_line(heard[-1])
        return started.wait()

    def kill_second(self) -> None:
        """All processes of the second host at once, as where its power is cut."""
        for pid in in_namespace(self.second.namespace):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        for host in self._started:
            processes.end(processes.offspring(host.pid))
            host.wait()
        shutil.rmtree(self._sockets, ignore_errors=True)


def in_namespace(name: str) -> list[int]:
    inode, pids = os.stat(f"/var/run/netns/{name}").st_ino, []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "ns/net").stat().st_ino == inode:
                pids.append(int(entry.name))
    return pids


@pytest.fixture
def cluster(tmp_path) -> Iterator[Cluster]:
    with network_namespaces.Namespaces() as spaces:
        made = Cluster(spaces, tmp_path)
        try:
            made.start()
            yield made
        finally:
            made.end()


@real
@pytest.mark.nightly
def test_two_hosts_without_a_shared_disk_are_refused_and_one_that_dies_costs_the_others_nothing(cluster, short_run):
    # Where the second host's disk is its own, nothing is trained.
    heard: list[str] = []
    assert cluster.run(short_run(cluster.root / "apart"), heard) == 1
    assert f"Ray: the cluster at {HEAD}, as RAY_ADDRESS says" in heard
    (refusal,) = (line for line in heard if line.startswith("error: "))
    assert "output-dir must be on a disk that all 2 hosts of the Ray cluster share" in refusal
    assert f"{SECOND} cannot see {cluster.root / 'apart'}/" in refusal
    assert not [line for line in heard if "round 1" in line]

    # On a shared one a run ends as anywhere, though the second host dies in it and never comes back.
    config = short_run(cluster.root / "shared", rounds=3, fraction=1.0)
    heard.clear()
    killed = threading.Event()

    def cut(line: str) -> None:
        if line.startswith("stage 1: round 1") and not killed.is_set():
            killed.set()
            cluster.kill_second()

    assert cluster.run(config, heard, cut) == 0, "\n".join(heard)
    assert killed.is_set()
    assert [line for line in heard if line.startswith("Ray: 2 hosts, ")]
    assert [line for line in heard if "actors of the simulation that have died" in line and "going on: 1" in line]
    report = json.loads(Path(heard[-1]).read_text())
    # Who was asked again did the same work: the run ends as one in a single process that nothing happened to.
    assert report["errors"] == []
    alone = config | {"output-dir": str(cluster.root / "alone")}
    unharmed = json.loads(run_here(settings_of(REPOSITORY / "sims/lamp7", [words(alone)])).read_text())
    assert report["arms"] == unharmed["arms"]


def test_a_cluster_that_does_not_answer_is_one_line(command, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    ended = command("run", "sims/lamp7")
    assert ended.code == 1
    assert "RAY_ADDRESS must be the host:port of a Ray cluster's head, got '127.0.0.1:1'" in ended.err
    assert ray_cluster({}) == "" and ray_cluster({"RAY_ADDRESS": "auto"}) == "auto"
