"""`python sims/search.py`: what is drawn, what a trial may see, and that the best comes back as a TOML for -c."""

import json
import math
import tomllib

import pytest

from fed.settings.methods import METHODS
from fed.settings.settings import Settings


@pytest.fixture
def search(script):
    return script("search")


@pytest.fixture
def draws(script):
    return script("cells.draws")


def started(script, method, task="LaMP_7"):
    seeds = {task: [0]}
    (cell,) = script("cells.plan").cells(seeds, [method], data=None, preset_name="small", changes={})
    return cell.settings()


def test_a_trial_depends_on_the_seed_and_its_number_alone(draws, script):
    start = started(script, "perfit")
    assert draws.draw(0, start, seed=0) == {}
    first = [draws.draw(trial, start, seed=0) for trial in range(20)]
    assert first == [draws.draw(trial, start, seed=0) for trial in range(20)]
    assert len({json.dumps(one) for one in first}) == 20
    assert draws.draw(3, start, seed=1) != first[3] != draws.draw(3, started(script, "oppu"), seed=0)


def test_all_of_rank_layers_positions_and_rate_are_drawn_and_every_draw_is_accepted(draws, script):
    start = started(script, "perfit")
    seen = {}
    for trial in range(1, 200):
        own = draws.draw(trial, start, seed=0)
        Settings.parse({**start.as_config(), **own}).edited_layers(30)
        for key, value in own.items():
            seen.setdefault(key, set()).add(value)
    assert seen["stage1-rank"] == {2, 4, 8, 16} and seen["stage2-rank"] == {1, 2, 4, 8}
    assert seen["layers"] == {draws.spaced(count, 30) for count in (2, 3, 4, 6)}
    assert seen["positions"] == {"all-f1", "all", "prompt-f1", "l3", "f3+l3"}
    assert seen["stage2-positions"] == {"same", "l2", "l3"}
    assert min(seen["stage1-lr"]) >= 0.001 and max(seen["stage1-lr"]) <= 0.016
    below = sum(rate < (0.001 * 0.016) ** 0.5 for rate in seen["stage1-lr"])
    assert 80 < below < 120  # even in the logarithm


def test_rates_alone_are_drawn_and_a_few_of_them_leave_no_large_gap(draws, script):
    start = started(script, "perfit")
    own = [draws.draw(trial, start, seed=0, over="rates") for trial in range(1, 9)]
    assert all(set(one) == {"stage1-lr", "stage2-lr"} for one in own)
    for key, (low, high) in draws.RATES.items():
        places = sorted(math.log(one[key] / low) / math.log(high / low) for one in own)
        gaps = [b - a for a, b in zip([0.0, *places], [*places, 1.0], strict=True)]
        assert places[0] >= 0 and places[-1] <= 1 and max(gaps) < 0.25


def test_layers_are_evenly_spaced(draws):
    assert draws.spaced(3, 30) == "7,15,22" and draws.spaced(2, 30) == "10,20" and draws.spaced(4, 32) == "6,12,19,25"


@pytest.mark.parametrize("method", [name for name in METHODS if name in ("lora-c", "lora-p", "oppu")])
def test_lora_has_the_rates_of_its_own_stages_to_search(draws, script, method):
    pytest.importorskip("peft")
    keys = set(draws.draw(1, started(script, method), seed=0))
    assert keys == {"lora-c": {"stage1-lr"}, "lora-p": {"stage2-lr"}, "oppu": {"stage1-lr", "stage2-lr"}}[method]


def test_trials_are_tested_on_held_out_history_and_differ_in_what_is_drawn_alone(search):
    options = search.parser().parse_args(["--task", "LaMP_7", "--trials", "6", "--held-out", "3"])
    (found,) = search.searches(options)
    cells = list(found.drawn)
    assert (found.task, found.method, found.start) == ("LaMP_7", "perfit", cells[0])
    assert len(cells) == 6 and len({cell.key for cell in cells}) == 6
    drawn = {"layers", "stage1-rank", "stage2-rank", "positions", "stage2-positions", "stage1-lr", "stage2-lr"}
    for cell in cells:
        settings = cell.settings()
        assert (settings.held_out, settings.max_new_tokens, settings.max_queries) == (3, 0, 0)
        rest = {key: value for key, value in settings.as_config().items() if key not in drawn}
        assert rest == {key: value for key, value in cells[0].settings().as_config().items() if key not in drawn}


def test_a_search_ends_with_the_best_settings_and_goes_on_where_it_stood(
    search, tiny_base, tmp_path, capsys, kept_worker
):
    """The real app on the tiny base."""
    line = ["--task", "LaMP_7", "--out", str(tmp_path), "--held-out", "2", "-c"]
    line.append(
        f'base-model="{tiny_base}" data="synthetic:4" layers="1,2" stage1-users=2 stage2-users=2 rounds=1 max-items=2'
    )
    assert search.main([*line, "--trials", "1"]) == 0
    assert search.main([*line, "--trials", "2"]) == 0
    said = capsys.readouterr().out
    assert "1 cells, 0 finished before" in said and "2 cells, 1 finished before" in said
    file = tmp_path / "LaMP_7" / "perfit.toml"
    assert said.splitlines()[-1] == str(file)
    trials = json.loads(file.with_suffix(".json").read_text())["trials"]
    losses = [trial["loss_per_token"] for trial in trials]
    assert len(losses) == 2 and losses == sorted(losses) and losses[0] < losses[1]
    assert losses == [trial["arms"]["stage1+2"]["loss_per_token"] for trial in trials]
    (drawn,) = [trial["settings"] for trial in trials if trial["trial"] == "perfit-01"]
    best = tomllib.loads(file.read_text())
    assert set(best) == set(drawn)
    if trials[0]["trial"] == "perfit-01":
        assert best == drawn
    else:
        assert best["layers"] == "1,2"
    assert "best of 2 trials" in file.read_text() and "at the starting point" in file.read_text()


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_several_tasks_are_searched_in_one_command(search, tiny_base, tmp_path, capsys, kept_worker, jobs):
    """The real app on the tiny base, one run for each task."""
    line = ["--task", "LaMP_4,LaMP_7", "--method", "perfit", "--over", "rates", "--trials", "1", "--jobs", str(jobs)]
    few = 'data="synthetic:3" layers="1,2" stage1-users=1 stage2-users=2 rounds=1 max-items=2'
    line += ["--out", str(tmp_path), "--held-out", "1", "-c", f'base-model="{tiny_base}" {few}']
    assert search.main(line) == 0
    assert f"2 cells, 0 finished before; 2 to run, {jobs} at a time" in capsys.readouterr().out
    losses = set()
    for task in ("LaMP_4", "LaMP_7"):
        assert f"perfit on {task}: the best of 1 trials" in (tmp_path / task / "perfit.toml").read_text()
        (trial,) = json.loads((tmp_path / task / "perfit.json").read_text())["trials"]
        assert trial["trial"] == "perfit-00"
        losses.add(trial["loss_per_token"])
    assert len(losses) == 2


def test_a_method_without_a_good_trial_takes_nothing_from_the_others(search, tmp_path, capsys, monkeypatch):
    def only_perfits(cells, *arguments, **options):
        arms = {"stage1": None, "stage1+2": {"loss_per_token": 1.5}}
        good = {cell: {"arms": arms, "seconds": {"wall": 1.0}} for cell in cells if cell.label.startswith("perfit")}
        return good, {cell: "the loss is nan" for cell in cells if cell not in good}

    monkeypatch.setattr(search, "run_cells", only_perfits)
    line = ["--task", "LaMP_7", "--method", "reft-p,perfit", "--trials", "2", "--over", "rates", "--out", str(tmp_path)]
    assert search.main(line) == 1
    said = capsys.readouterr()
    assert said.err == "error: no trial of reft-p on LaMP_7 ended with a finite loss\n"
    assert [file.name for file in sorted((tmp_path / "LaMP_7").glob("*.toml"))] == ["perfit.toml"]
    found = tomllib.loads((tmp_path / "LaMP_7" / "perfit.toml").read_text())
    assert set(found) == {"stage1-lr", "stage2-lr"}  # both, also where the starting point is the best
    (cell,) = search.grid.cells({"LaMP_7": [0]}, ["perfit"], data=None, preset_name="small", changes={}, best=tmp_path)
    assert {key: cell.config[key] for key in found} == found


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--task", "LaMP_3", "--data", "/nowhere"], "must be 'synthetic' or an existing folder"),
        (["--task", "LaMP_9"], "the task must be one of"),
        (["--task", "LaMP_7", "--method", "best"], "methods must be among"),
        (["--task", "LaMP_7", "--trials", "0"], "trials must be at least 1, got 0"),
        (["--task", "LaMP_7", "--held-out", "0"], "held-out must be at least 1, got 0"),
        (["--task", "LaMP_7", "-c", "rounds=0"], "rounds must be at least 1"),
    ],
)
def test_a_mistake_is_one_line(search, capsys, tmp_path, arguments, words):
    assert search.main([*arguments, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and words in said.err and said.err.count("\n") == 1
    assert not (tmp_path / "out").exists()
