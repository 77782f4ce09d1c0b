"""`python sims/compare_methods.py`: the plan, resume after a torn or changed cell, the files, and how it refuses."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import MISSING
from pathlib import Path

import pytest

from fed.lamp.tasks import TASKS
from fed.settings.methods import METHODS
from fed.settings.settings import keys as settings_keys

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY.parents[0] / "shared" / "data"


@pytest.fixture
def command(script, capsys):
    """command(*options) -> (exit code, what it said, its error line)."""

    def run(*arguments):
        code = script("compare_methods").main([str(one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def small(tiny_base):
    return (
        f'base-model="{tiny_base}" layers="1,2" data="synthetic:4" stage1-users=3 stage2-users=2 rounds=1 '
        "max-items=2 max-queries=1 max-new-tokens=3"
    )


def test_a_grid_is_run_by_the_real_app_and_a_finished_cell_is_not_run_again(
    command, script, small, tmp_path, monkeypatch, kept_worker
):
    pytest.importorskip("peft")
    options = ("--tasks", "LaMP_7", "--methods", "perfit,lora-p", "--out", tmp_path, "-c", small)
    code, said, error = command(*options)
    assert code == 0, said + error
    assert "2 cells, 0 finished before" in said and "Table 3" in said and "Table 2" not in said  # tweets are generated
    found = json.loads((tmp_path / "results.json").read_text())
    assert [(row["table"], row["stage"], row["method"]) for row in found["rows"]] == [
        (3, "stage 1", "perfit"), (3, "stage 1 + 2", "perfit"), (3, "stage 1 + 2", "lora-p"),
        (4, "last arm", "perfit"), (4, "last arm", "lora-p"),
    ]  # fmt: skip
    assert found["missing"] == [] and "lora-p" in {gap["theirs"] for gap in found["differences"]}
    assert found["run"]["command"].startswith("python sims/compare_methods.py --tasks LaMP_7")
    for name in ("tables.md", "index.html", "results.csv", "differences.csv", "tradeoff.png"):
        assert (tmp_path / name).stat().st_size > 200
    cells = script("cells.cell")
    asked = []
    monkeypatch.setattr(cells, "run", lambda app, config, *, say, seat: asked.append(config["method"]) or _fails())
    code, said, error = command(*options)
    assert code == 0 and asked == [] and "2 cells, 2 finished before" in said
    assert json.loads((tmp_path / "results.json").read_text())["rows"] == found["rows"]
    (torn,) = tmp_path.glob("cells/LaMP_7/lora-p-0-*/cell.json")
    torn.write_text(torn.read_text()[:100])
    code, said, error = command(*options)
    assert code == 1 and asked == ["lora-p"] and "failed: no" in said
    code, said, error = command(*options, "-c", "stage2-epochs=2")
    assert code == 1 and asked == ["lora-p", "perfit", "lora-p"]  # other settings are other cells
    left = json.loads((tmp_path / "results.json").read_text())
    assert [(one["method"], one["reason"]) for one in left["missing"]] == [("lora-p", "no")] and left["rows"]


def _fails():
    raise ValueError("no")


def test_two_cells_at_a_time_give_the_same_numbers_and_one_run_does_for_a_method_and_its_stage_1(
    command, script, small, tmp_path, monkeypatch
):
    options = ("--tasks", "LaMP_7", "--methods", "perfit,perfit-stage1,reft-p", "-c", f'{small} dtype="float64"')
    code, said, error = command(*options, "--jobs", "2", "--out", tmp_path / "two")
    assert code == 0, said + error
    assert "3 cells, 0 finished before; 2 to run, 2 at a time" in said
    monkeypatch.setattr(script("cells.cell"), "STAGE1_OF", {})  # the stage 1 by a run of its own
    options = ("--tasks", "LaMP_7", "--methods", "perfit-stage1", "-c", f'{small} dtype="float64"')
    code, said, error = command(*options, "--out", tmp_path / "one")
    assert code == 0 and "1 to run, 1 at a time" in said, said + error

    def reports(folder):
        found = json.loads((tmp_path / folder / "results.json").read_text())["cells"]
        return {cell["method"]: cell for cell in found}

    two = reports("two")
    assert list(two) == ["perfit", "perfit-stage1", "reft-p"]
    taken, own = two["perfit-stage1"], reports("one")["perfit-stage1"]
    for arm, scores in own["arms"].items():
        other = taken["arms"][arm]
        assert scores == (other and pytest.approx(other, rel=1e-9)), arm  # threads differ

    def comparisons(folder):
        (kept,) = (tmp_path / folder).glob("cells/LaMP_7/perfit-stage1-0-*/cell.json")
        return json.loads(kept.read_text())["report"]["comparisons"]

    for mine, others in zip(comparisons("one"), comparisons("two"), strict=True):
        names = ("a", "b", "metric", "users")
        assert [mine[name] for name in names] == [others[name] for name in names] and mine["b"] == "stage1"
        for number in ("difference", "p"):
            assert mine[number] == pytest.approx(others[number], rel=1e-6)
    assert own["parameters"] == taken["parameters"] and own["bytes"]["stage1"] == taken["bytes"]["stage1"]
    assert own["settings"]["method"] == taken["settings"]["method"] == "perfit-stage1"
    assert own["arms"]["stage1"] and own["arms"]["stage1+2"] is None
    assert "total" in own["seconds"] and "total" not in taken["seconds"]
    assert two["reft-p"]["arms"]["stage1+2"] != two["perfit"]["arms"]["stage1+2"]


def test_which_methods_need_no_run_of_their_own(script):
    def taken(labels, **changes):
        cells = script("cells.plan").cells({"LaMP_7": [0, 1]}, labels, data=None, preset_name="small", changes=changes)
        return [(c.label, c.seed, o.label, o.seed) for c, o in script("cells.cell").same_stage1(cells).items()]

    assert taken(["perfit", "perfit-stage1", "oppu", "lora-c", "lora-p"]) == [
        ("perfit-stage1", 0, "perfit", 0),
        ("lora-c", 0, "oppu", 0),
        ("perfit-stage1", 1, "perfit", 1),
        ("lora-c", 1, "oppu", 1),
    ]
    assert taken(["perfit:stage2-rank=1", "perfit-stage1"])  # a setting of stage 2 alone
    assert taken(["perfit:stage1-lr=0.5", "perfit-stage1"]) == []
    assert taken(["perfit:retrieved=1", "perfit-stage1"]) == []
    assert taken(["perfit-stage1"]) == []


@pytest.mark.parametrize(("jobs", "cores", "words"), [(1, 8, ""), (2, 2, "=1 "), (3, 16, "=5 "), (4, 2, "=1 ")])
def test_each_of_several_seats_has_its_part_of_the_cores(script, jobs, cores, words):
    found = script("simulation.seats").share(jobs, cores)
    assert (words in found + " ") if words else found == ""


def test_a_seat_alone_has_all_cores_and_two_at_least(script):
    cores_of = script("simulation.seats").cores_of
    assert [cores_of(1, cores) for cores in (1, 2, 8)] == [2, 2, 8]
    assert [cores_of(3, cores) for cores in (2, 16)] == [1, 5]


@pytest.mark.parametrize(
    ("runtime", "fewest"),
    [
        ("in-process", 2),  # the command, and the process that runs its cells
        pytest.param("flower", 5, marks=pytest.mark.nightly),  # the command, the run, the SuperLink, what it started
    ],
)
def test_a_grid_that_is_ended_with_its_whole_group_leaves_no_process_behind(script, small, tmp_path, runtime, fewest):
    """As `timeout` ends it: the group hears the signal more than once, and the clean-up must not be cut short by it."""
    command = [sys.executable, str(REPOSITORY / "sims" / "compare_methods.py"), "--tasks", "LaMP_7"]
    command += ["--methods", "perfit", "--runtime", runtime, "--out", str(tmp_path)]
    command += ["-c", small.replace("rounds=1", "rounds=500")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    stopped = time.monotonic() + 120
    while not list(tmp_path.glob("cells/LaMP_7/*/*/rounds.jsonl")):
        assert process.poll() is None and time.monotonic() < stopped
        time.sleep(0.2)
    processes = script("simulation.processes")
    family = processes.family(process.pid)
    assert len(family) >= fewest
    stopped = time.monotonic() + 120
    while process.poll() is None:  # in whatever it does to end, the next signal finds it
        assert time.monotonic() < stopped
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.1)
    assert process.returncode == 143
    stopped = time.monotonic() + 30
    while left := processes.alive(family):
        assert time.monotonic() < stopped, left
        time.sleep(0.2)
    assert not list(tmp_path.glob("cells/LaMP_7/*/cell.json"))


def test_two_commands_do_not_run_cells_in_one_folder(script, tmp_path):
    run_cells, console = script("cells.run_cells").run_cells, script("compare_methods").Console(quiet=True)

    def again(*_):
        raise AssertionError("a cell was run")

    with (tmp_path / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="one command at a time may run cells in"):
            run_cells([], tmp_path, console, again)
    assert run_cells([], tmp_path, console, again) == ({}, {})


def test_a_cells_name_tells_settings_and_data_apart_but_not_places(script, tmp_path):
    cells = script("cells.cell")

    def key(**config):
        return cells.Cell("LaMP_7", "perfit", 0, {"data": "synthetic:4"} | config).key

    assert key() == key(**{"output-dir": "/elsewhere"}) == key(**{"node-timeout": 9})
    assert len({key(), key(seed=1), key(rounds=9), key(data="synthetic:5"), key(method="oppu")}) == 5
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).mkdir()
        for file in ("user_others.json", "user_top_100_history.json"):
            (tmp_path / name / file).write_text(text)
    a, b, c = (key(data=str(tmp_path / name)) for name in "abc")
    assert a == b != c


def test_a_cell_that_finished_before_a_setting_came_keeps_its_name_while_that_is_at_its_default(script):
    """The name as the first release had it."""
    early = "activation-cache answer held-out min-nodes profile reply-timeout retrieved style-layer style-strength "
    early += "top-k top-p"
    later = {key for key, one in settings_keys().items() if one.default is not MISSING and key not in early.split()}
    assert {"stage1", "warmup", "history-rows"} < later
    places = {"app", "data", "output-dir", "node-timeout", "device", "resume", "run-deadline"}
    cell = script("cells.cell").Cell("LaMP_2N", "perfit", 3, {"data": "synthetic:4", "seed": 3})
    what = {key: value for key, value in cell.settings().as_config().items() if key not in later | places}
    what["content"] = "synthetic:4"
    assert cell.key == hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:16]
    others = [dict(cell.config, **{key: value}) for key, value in (("warmup", 0.5), ("stage2-layers", "last2"))]
    assert cell.key not in {script("cells.cell").Cell("LaMP_2N", "perfit", 3, config).key for config in others}


def test_the_whole_grid_is_planned_within_four_hours(command, script):
    if not DATA.is_dir():
        pytest.skip("no development data on this machine")
    pytest.importorskip("datasets")
    code, said, _ = command("--data", DATA, "--seeds", "0", "LaMP_4=0,1,2", "LaMP_7=0,1,2", "--dry-run")
    lines = said.splitlines()
    assert code == 0
    for task in TASKS:
        for method in (name for name in METHODS if name not in script("cells.plan").HALVES):
            seeds = [line.split()[3] for line in lines if line.split()[:2] == [task, method]]
            assert seeds[:1] == ["0"] and len(seeds) in ((1, 3) if task in ("LaMP_4", "LaMP_7") else (1,))
    assert "cells, 100 of them to run, about " in lines[-1] and (
        " h " not in lines[-1] or int(lines[-1].split(" h ")[0].split()[-1]) < 4
    )


@pytest.mark.parametrize("runtime", ["in-process", "flower"])
def test_cells_side_by_side_save_their_starts_and_no_computing(script, runtime):
    grid = script("cells.estimate")
    computing, start = [10.0, 30.0], grid.START_SECONDS[runtime]
    guesses = [start + one for one in computing]
    assert grid.elapsed(guesses, 1, runtime) == pytest.approx(sum(guesses))
    assert grid.elapsed(guesses, 2, runtime) == pytest.approx(sum(computing) + start)


def test_a_cell_in_a_kept_process_is_not_charged_the_start_of_flower(script, small):
    plan, grid, apps = (script(name) for name in ("cells.plan", "cells.estimate", "simulation.apps"))
    changes = apps.parsed([small])
    cells = plan.cells({"LaMP_7": [0]}, ["perfit"], data=None, preset_name="small", changes=changes)
    (here,), (there,) = (grid.estimates(cells, runtime).values() for runtime in ("in-process", "flower"))
    assert there - here == pytest.approx(grid.START_SECONDS["flower"] - grid.START_SECONDS["in-process"]) and here < 12


def test_items_that_are_retrieved_are_read_too(script, small):
    plan, grid, apps = (script(name) for name in ("cells.plan", "cells.estimate", "simulation.apps"))
    of = {"data": None, "preset_name": "small", "changes": apps.parsed([small])}
    cells = plan.cells({"LaMP_7": [0]}, ["non-personalized", *plan.RAG], **of)
    guesses = list(grid.estimates(cells, "in-process").values())
    assert guesses == sorted(guesses) and len(set(guesses)) == 4


def test_a_comparison_has_every_method_and_rag_with_one_two_and_four_items(script):
    plan = script("cells.plan")
    assert [label for label in plan.COMPARED if ":" not in label] == [m for m in METHODS if m not in plan.HALVES]
    cells = plan.cells({"LaMP_7": [0]}, plan.COMPARED, data=None, preset_name="small", changes={})
    retrieved = [cell.settings().retrieved for cell in cells if cell.settings().method == "rag"]
    assert retrieved == [1, 2, 4] and len({cell.key for cell in cells}) == len(cells)


def test_the_apps_preset_is_each_app_as_it_stands(script):
    apps = script("simulation.apps")
    (cell,) = script("cells.plan").cells({"LaMP_7": [0]}, ["perfit"], data=None, preset_name="app", changes={})
    assert cell.settings() == apps.settings("lamp7", {})


def test_every_method_of_a_task_gets_the_same_users_rows_and_steps(script):
    cells = script("cells.plan").cells({"LaMP_7": [0]}, list(METHODS), data=None, preset_name="small", changes={})
    own = {"method", "stage1-lr", "stage2-lr", "average", "retrieved", "profile"}
    shared = [{k: v for k, v in cell.settings().as_config().items() if k not in own} for cell in cells]
    assert len(shared) == len(METHODS) and all(one == shared[0] for one in shared)


def test_a_method_may_have_settings_of_its_own_and_what_a_search_found(script, tmp_path):
    grid = script("cells.plan")
    (tmp_path / "LaMP_7").mkdir()
    (tmp_path / "LaMP_7" / "perfit.toml").write_text("stage1-lr = 0.0123\nstage1-rank = 5\n")
    both = grid.cells(
        {"LaMP_7": [3]}, ["perfit", "perfit:stage1-rank=2"], data=None, preset_name="small", changes={}, best=tmp_path
    )
    assert [c.label for c in both] == ["perfit", "perfit:stage1-rank=2"] and both[0].key != both[1].key
    assert [(c.settings().stage1_lr, c.settings().stage1_rank) for c in both] == [(0.0123, 5), (0.0123, 2)]
    assert {c.settings().seed for c in both} == {3}


def test_what_was_searched_on_one_task_serves_others_first_those_answered_alike_and_the_methods_stage_1(
    script, tmp_path
):
    grid, cells = script("cells.plan"), script("cells.cell")
    for task, rate in (("LaMP_2M", 0.002), ("LaMP_4", 0.004)):
        (tmp_path / task).mkdir()
        (tmp_path / task / "perfit.toml").write_text(f"stage1-lr = {rate}\nstage2-lr = {rate / 10}\n")
    tasks = {task: [0] for task in ("LaMP_2N", "LaMP_2M", "LaMP_3", "LaMP_4", "LaMP_5", "LaMP_7")}
    methods = ["perfit", "perfit-stage1", "reft-p"]
    made = grid.cells(tasks, methods, data=None, preset_name="small", changes={}, best=tmp_path)
    rates = {(c.task, c.label): c.settings().stage1_lr for c in made}
    for task in tasks:
        expected = 0.002 if task in ("LaMP_2N", "LaMP_2M", "LaMP_3") else 0.004
        assert rates[task, "perfit"] == rates[task, "perfit-stage1"] == expected
    plain = grid.cells(tasks, methods, data=None, preset_name="small", changes={})
    assert [c.key for c in made if c.label == "reft-p"] == [c.key for c in plain if c.label == "reft-p"]
    taken = cells.same_stage1(made)
    assert {(c.task, c.label, other.label) for c, other in taken.items()} == {
        (task, "perfit-stage1", "perfit") for task in tasks
    }
    (tmp_path / "LaMP_2M" / "perfit.toml").unlink()
    (labels, _, _) = grid.cells({"LaMP_3": [0]}, methods, data=None, preset_name="small", changes={}, best=tmp_path)
    assert labels.settings().stage1_lr == 0.004  # the only one there is


def test_the_papers_preset_has_the_same_rates_for_every_method_and_the_papers_in_stage_2(script):
    cells = script("cells.plan").cells({"LaMP_7": [0]}, list(METHODS), data=None, preset_name="paper", changes={})
    of_cells = [cell.settings() for cell in cells]
    assert {(s.stage1_lr, s.stage2_lr, s.batch_size, s.temperature) for s in of_cells} == {(0.001, 0.0001, 16, 0.1)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--tasks", "LaMP_9"], "the task must be one of"),
        (["--tasks", "LaMP_7,LaMP_7"], "tasks must differ"),
        (["--tasks", "LaMP_7", "--methods", "perfit,best"], "methods must be among"),
        (["--tasks", "LaMP_7", "--methods", "perfit:rank"], "must be key=value such as rag:retrieved=4"),
        (["--tasks", "LaMP_7", "--seeds", "0,x"], "seeds must be whole numbers"),
        (["--tasks", "LaMP_7", "--seeds", "1,1"], "seeds must differ"),
        (["--tasks", "LaMP_7", "--seeds", "LaMP_4=1"], "for the chosen tasks, LaMP_7, got"),
        (["--tasks", "LaMP_7", "-c", "rounds"], "key=value pairs"),
        (["--tasks", "LaMP_7", "-c", "rounds=0"], "rounds must be at least 1, got 0"),
        (["--tasks", "LaMP_7", "--best", "/nowhere"], "--best must be a folder"),
        (["--tasks", "LaMP_7", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (["--tasks", "LaMP_3", "--data", "/nowhere"], "must be 'synthetic' or an existing folder"),
    ],
)
def test_a_mistake_is_one_line_before_anything_runs(command, tmp_path, arguments, words):
    code, said, error = command(*arguments, "--out", tmp_path / "out")
    assert code == 1 and said == "" and not (tmp_path / "out").exists()
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
