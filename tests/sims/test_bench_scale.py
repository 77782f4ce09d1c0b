"""`sims/bench_scale.py`: a real run a size, the table, the plot, and how cost grows."""

from __future__ import annotations

import json

import pytest
from simulation import apps


def sized(users: int, seconds: float) -> dict:
    phases = {"stage1": seconds / 4, "stage2": seconds / 4, "evaluate": seconds / 4, "around": seconds / 4}
    return {
        "users": users,
        "wall_seconds": seconds + 20.0,
        "seconds": phases | {"total": seconds},
        "user_round_seconds": seconds / (3 * users),
        "server": {"seconds": {"stage1": seconds / 8}, "share": 0.125},
        "peak_bytes": 1e9,
    }


def test_the_exponent_is_one_where_cost_is_proportional_and_two_where_it_is_quadratic(script):
    bench = script("bench_scale")
    assert bench.growth([sized(10, 2.0), sized(100, 20.0), sized(1000, 2000.0)]) == pytest.approx([1.0, 2.0])


def test_the_fit_finds_what_is_fixed_and_what_a_user_costs_and_the_power_of_what_grows(script):
    fits = script("bench.scale").grown([sized(users, 12.0 + 0.004 * users) for users in (10, 100, 1000, 10_000)])
    assert fits["total"]["fixed_seconds"] == pytest.approx(12.0) and fits["total"]["ms_a_user"] == pytest.approx(4.0)
    assert fits["total"]["power"] == pytest.approx(1.0, abs=0.03)
    assert fits["server"]["ms_a_user"] == pytest.approx(0.5)
    squared = script("bench.scale").grown([sized(users, 12.0 + 1e-6 * users**2) for users in (10, 100, 1000, 10_000)])
    assert squared["total"]["power"] == pytest.approx(2.0, abs=0.03)
    assert script("bench.scale").grown([sized(10, 2.0)])["total"]["power"] is None


def test_sizes_that_the_file_has_are_kept_and_another_file_is_refused(script, tmp_path):
    file = tmp_path / "scale.json"
    file.write_text(json.dumps({"runs": [sized(10, 2.0)]}))
    assert script("bench_scale").kept(file) == [sized(10, 2.0)]
    file.write_text("[]")
    with pytest.raises(ValueError, match="must name a new file or one of bench_scale"):
        script("bench_scale").kept(file)


def test_the_table_tells_the_commands_own_time_beside_the_runs(script):
    made = script("bench.scale").table([sized(10, 8.0)])
    cells = {column.header: next(iter(column.cells)) for column in made.columns}
    assert (cells["by the clock, s"], cells["to the report, s"], cells["stage 1"]) == ("28.0", "8.0", "2.0")


def test_the_plot_is_written_as_png_and_svg(script, tmp_path):
    script("bench.scale").plot([sized(10, 20.0), sized(100, 30.0)], tmp_path / "scale.json")
    assert (tmp_path / "scale.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (tmp_path / "scale.svg").read_text()


def assert_one_size(file, users):
    (size,) = json.loads(file.read_text())["runs"]
    assert size["users"] == users and size["peak_bytes"] > 0
    parts = (size["seconds"][name] for name in ("stage1", "stage2", "evaluate", "around"))
    assert size["seconds"]["total"] == pytest.approx(sum(parts))
    assert size["user_round_seconds"] == pytest.approx(size["seconds"]["total"] / (3 * users))


def test_a_size_is_what_a_real_runs_report_says(command, script, flower_run, monkeypatch, tmp_path):
    def finished(app, config, *, say, seat):
        assert seat is None or seat.federation == "client-resources-num-cpus=1"
        assert apps.settings(app, config).rounds == 1  # the run config is one that the app accepts
        return flower_run.finished

    monkeypatch.setattr(script("bench.scale"), "run", finished)
    ended = command("bench_scale", "--users", "6", "--json", tmp_path / "scale.json")
    assert ended.code == 0, ended.out + ended.err
    assert_one_size(tmp_path / "scale.json", 6)
    ended = command("bench_scale", "--users", "7", "--federation-config", "client-resources-num-cpus=1")
    assert ended.code == 1 and "7 users must be tested, and 6 were" in ended.err


@pytest.mark.nightly
def test_a_size_is_a_real_run_of_the_app(command, tmp_path):
    ended = command("bench_scale", "--users", "3", "--json", tmp_path / "scale.json")
    assert ended.code == 0, ended.out + ended.err
    assert_one_size(tmp_path / "scale.json", 3)
