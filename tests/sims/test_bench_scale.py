"""`sims/bench_scale.py`: a real run a size, the table, the plot, and how cost grows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "sims" / "bench_scale.py"


def sized(users: int, seconds: float) -> dict:
    phases = {"stage1": seconds / 4, "stage2": seconds / 4, "evaluate": seconds / 4, "around": seconds / 4}
    return {
        "users": users,
        "seconds": phases | {"total": seconds},
        "user_round_seconds": seconds / (3 * users),
        "peak_bytes": 1e9,
    }


def test_the_exponent_is_one_where_cost_is_proportional_and_two_where_it_is_quadratic(script):
    bench = script("bench_scale")
    assert bench.growth([sized(10, 2.0), sized(100, 20.0), sized(1000, 2000.0)]) == pytest.approx([1.0, 2.0])


def test_the_plot_is_written_as_png_and_svg(script, tmp_path):
    script("bench.scale").plot([sized(10, 20.0), sized(100, 30.0)], tmp_path / "scale.json")
    assert (tmp_path / "scale.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (tmp_path / "scale.svg").read_text()


def test_a_size_is_a_real_run_of_the_app(tmp_path):
    file = tmp_path / "scale.json"
    command = [sys.executable, str(SCRIPT), "--users", "3", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (one,) = json.loads(file.read_text())["runs"]
    assert one["users"] == 3 and one["peak_bytes"] > 0
    assert one["seconds"]["total"] == pytest.approx(
        sum(one["seconds"][name] for name in ("stage1", "stage2", "evaluate", "around"))
    )
