"""How many threads, how long they spin, and that both are set before torch is loaded."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fed import threads

REPOSITORY = Path(__file__).resolve().parents[2]
# Says what the environment holds at the moment torch is imported, and ends there.
WATCHED = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("KMP_BLOCKTIME"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Watch())
sys.path[:0] = [{sims!r}, {checkout!r}]
import {module}
print("torch is not imported")
"""
MODULES = ["clients.app", "clients.chat", "server_strategy.app", "simulation.worker"]
MODULES += [path.stem for path in sorted((REPOSITORY / "sims").glob("*.py"))]


@pytest.mark.parametrize("module", MODULES)
def test_waiting_threads_are_bounded_before_torch_is_loaded(module):
    environment = {key: value for key, value in os.environ.items() if key not in threads.SPIN}
    code = WATCHED.format(sims=str(REPOSITORY / "sims"), checkout=str(REPOSITORY), module=module)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("1000 1", "torch is not imported")
    assert done.stdout.strip() == "1000 1" or module not in ("clients.app", "clients.chat", "server_strategy.app")


def test_threads_are_the_cpus_that_a_control_group_leaves(monkeypatch):
    monkeypatch.setattr(threads, "available", lambda: 3)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    environment: dict[str, str] = {}
    threads.bound(environment)
    assert environment["OMP_NUM_THREADS"] == "3"
    asked = {"OMP_NUM_THREADS": "8"}
    threads.bound(asked)
    assert asked["OMP_NUM_THREADS"] == "8"
    patient = {"GOMP_SPINCOUNT": "7"}
    threads.bound(patient)
    assert patient["GOMP_SPINCOUNT"] == "7"
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    whole: dict[str, str] = {}
    threads.bound(whole)
    assert "OMP_NUM_THREADS" not in whole


@pytest.mark.parametrize(
    ("files", "groups", "share"),
    [
        ({"cpu.max": "max 100000"}, "0::/", math.inf),
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"cpu.max": "800000 100000", "a/cpu.max": "max 100000", "a/b/cpu.max": "300000 100000"}, "0::/a/b", 3.0),
        ({"cpu.max": "200000 100000", "a/cpu.max": "800000 100000"}, "0::/a", 2.0),
        ({"cpu.max": "200000 100000"}, "0::/of/the/host", 2.0),
        ({"cpu/d/cpu.cfs_quota_us": "50000", "cpu/d/cpu.cfs_period_us": "100000"}, "4:cpuacct,cpu:/d\n0::/", 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "1:cpu:/", math.inf),
        ({"cpu.max": "rubbish"}, "0::/", math.inf),
        ({}, "rubbish", math.inf),
        ({}, None, math.inf),
    ],
)
def test_a_share_of_the_cpus_is_read_from_the_group_and_those_above_it(tmp_path, files, groups, share):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "groups").write_text(groups or "")
    assert threads.quota(tmp_path, tmp_path / ("groups" if groups is not None else "none")) == share


def test_a_process_may_always_use_one_cpu(monkeypatch):
    monkeypatch.setattr(threads, "quota", lambda: 0.1)
    assert threads.available() == 1


# A block's products and norms at the shapes of the embedded base, forward and backward; prints steps a second.
WORK = """
import sys
sys.path.insert(0, {checkout!r})
import fed, time, torch
torch.set_num_threads(fed.threads.available())
up, down = torch.randn(1536, 576), torch.randn(576, 1536)
rows = torch.randn(768, 576, requires_grad=True)
def step():
    hidden = rows
    for _ in range(4):
        hidden = torch.nn.functional.layer_norm(torch.nn.functional.silu(hidden @ up.T) @ down.T, (576,))
    hidden.square().mean().backward()
for _ in range(5):
    step()
began, steps = time.monotonic(), 0
while time.monotonic() - began < 4:
    step()
    steps += 1
print(steps / (time.monotonic() - began))
"""


@pytest.mark.nightly
@pytest.mark.skipif(threads.available() < 2, reason="one CPU is shared half and half whatever threads do")
def test_beside_a_busy_process_training_keeps_at_least_half_its_speed():
    """The only test that reads a clock, and a ratio at that: without a bound it is a tenth."""

    def speed() -> float:
        code = WORK.format(checkout=str(REPOSITORY))
        return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)

    ratios = []
    for _ in range(3):  # interleaved, and the middle one counts
        alone = speed()
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            ratios.append(speed() / alone)
        finally:
            busy.kill()
            busy.wait()
    assert sorted(ratios)[1] >= 0.5, ratios
