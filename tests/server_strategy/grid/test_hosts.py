"""The hosts of a Ray cluster share the run's folder, or the run is refused: a stand-in for Ray, with disks as told."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from server_strategy.grid import hosts


class RayError(Exception):
    pass


@pytest.fixture
def cluster(monkeypatch):
    """cluster(a="shared", b="own", c="dies", d="silent"): hosts by address, and what each has for a disk."""

    def make(**disks: str) -> None:
        placed = SimpleNamespace(NodeAffinitySchedulingStrategy=lambda host, soft: host)
        ray = ModuleType("ray")
        ray.exceptions = SimpleNamespace(RayError=RayError)
        ray.is_initialized = lambda: True
        ray.nodes = lambda: (
            [
                {"Alive": disk != "gone", "NodeID": name, "NodeManagerAddress": name, "Resources": {"CPU": 1.0}}
                for name, disk in disks.items()
            ]
            + [{"Alive": True, "NodeID": "head", "NodeManagerAddress": "head", "Resources": {}}]
        )

        def remote(**_):
            def task(function):
                def options(scheduling_strategy):
                    return SimpleNamespace(remote=lambda *given: (scheduling_strategy, function, given))

                return SimpleNamespace(options=options)

            return task

        def get(answer):
            host, function, given = answer
            if disks[host] == "dies":
                raise RayError
            return function(*given) and disks[host] == "shared"

        ray.remote, ray.get = remote, get
        ray.wait = lambda answers, **_: ([a for a in answers if disks[a[0]] != "silent"], [])
        for name, module in {"ray": ray, "ray.util": ModuleType("u"), "ray.util.scheduling_strategies": placed}.items():
            monkeypatch.setitem(sys.modules, name, module)

    return make


def test_hosts_that_share_the_folder_are_told_by_a_file_that_goes_again(cluster, tmp_path):
    cluster(a="shared", b="shared", c="gone")
    assert hosts.names() == ["a", "b"]  # one that is gone, or may not compute, is not asked
    assert hosts.apart(str(tmp_path)) == "" and list(tmp_path.iterdir()) == []


def test_a_host_with_a_disk_of_its_own_is_named_with_the_rule_and_the_fix(cluster, tmp_path):
    cluster(a="shared", b="own", c="dies", d="silent")
    line = hosts.apart(str(tmp_path))
    assert "must be on a disk that all 4 hosts of the Ray cluster share" in line and "\n" not in line
    assert f"b, c, d cannot see {tmp_path}; mount it there, or set output-dir" in line
    assert list(tmp_path.iterdir()) == []


def test_one_host_and_a_federation_without_ray_have_nothing_to_share(cluster, tmp_path, monkeypatch):
    cluster(a="own")
    assert hosts.apart(str(tmp_path / "none")) == ""
    monkeypatch.delitem(sys.modules, "ray")
    assert hosts.names() == [] and hosts.apart(str(tmp_path / "none")) == ""
