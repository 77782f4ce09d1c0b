"""Subcommands of `python sims/explore.py` that run cells: what they ask for and conclude; real runs by night."""

from __future__ import annotations

import json
import math

import pytest

TINY = ("--data", "synthetic:4", "--users", "3")
SHORT = "rounds=1 max-items=3 max-queries=2 max-new-tokens=3 batch-size=4"


@pytest.fixture
def runs(script):
    return script("exploration.sweeps.runs")


@pytest.fixture
def canned(runs, monkeypatch):
    """Reports made from a cell's settings: the loss grows with the block, falls with ranks and number of blocks."""
    asked = []

    def run_cells(cells, root, console, **_):
        reports = {}
        for cell in cells:
            asked.append(cell.config)
            blocks = [int(word) for word in cell.config.get("layers", "1").split(",")]
            loss = 2 + 0.1 * sum(blocks) / len(blocks) - 0.2 * math.log2(len(blocks))
            loss -= 0.05 * math.log2(cell.config.get("stage1-rank", 1)) + 0.01 * len(cell.config["method"])
            arms = {arm: {"loss_per_token": loss + more, "rougeL": 0.1, "accuracy": 0.2} for arm, more in MORE.items()}
            reports[cell] = {
                "arms": arms,
                "users": [
                    {
                        "user_id": user,
                        "sums": {
                            arm: {"nll": 10 * (loss + more + 0.01 * place), "tokens": 10} for arm, more in MORE.items()
                        },
                    }
                    for place, user in enumerate("abcde")
                ],
                "parameters": {"stage1": 100 * len(blocks), "stage2": 50, "base": 10_000},
                "seconds": {"stage1": 1.0, "stage2": 2.0},
            }
        return reports, {}

    monkeypatch.setattr(runs, "run_cells", run_cells)
    return asked


MORE = {"base": 0.5, "stage1": 0.2, "stage1+2": 0.0, "swapped": 0.3}


def result(folder, name, task="LaMP_7"):
    return json.loads((folder / task / f"{name}.json").read_text())


def test_blocks_are_spaced_symmetrically_about_the_middle(runs):
    assert [runs.symmetric(count, 30) for count in (1, 2, 3, 4)] == [
        (15,), (7, 22), (5, 15, 24), (3, 11, 18, 26),
    ]  # fmt: skip
    for blocks in (4, 7, 30, 32):
        for count in range(1, blocks + 1):
            some = runs.symmetric(count, blocks)
            assert len(set(some)) == count and list(some) == sorted(some)
            mirrored = [blocks - 1 - block for block in reversed(some)]
            assert mirrored == list(some) or (count % 2 and blocks % 2 == 0)  # no middle block there
    with pytest.raises(ValueError, match="4 blocks have 1 to 4 to edit, got 5"):
        runs.symmetric(5, 4)


def test_layers_asks_for_each_block_and_for_more_and_says_whether_earlier_is_better(
    canned, command, tmp_path, tiny_base, quick_figures
):
    ended = command("explore", "layers", *TINY, "--base-model", tiny_base, "--out", tmp_path)
    assert ended.code == 0 and "the best single block is 0" in ended.out and "earlier is better" in ended.out
    assert [config["layers"] for config in canned] == ["0", "1", "2", "3", "1,2", "0,1,2,3"]  # 2 alone is the middle
    assert all((c["stage1-users"], c["stage2-users"], c["stage2-layers"]) == (3, 3, "same") for c in canned)
    found = result(tmp_path, "layers")
    assert found["earlier_minus_later"]["difference"] == pytest.approx(-0.2)
    assert [row["layers"] for row in found["sets"]] == [[2], [1, 2], [0, 1, 2, 3]]
    assert "layers.json, layers-single.png, layers-many.png" in ended.out


def test_ranks_asks_for_every_pair_and_tells_which_rank_matters(canned, command, tmp_path, tiny_base, quick_figures):
    ended = command("explore", "ranks", *TINY, "--base-model", tiny_base, "--ranks", "1,4", "--out", tmp_path)
    assert ended.code == 0
    assert [(c["stage1-rank"], c["stage2-rank"]) for c in canned] == [(1, 1), (1, 4), (4, 1), (4, 4)]
    assert "collective rank 4 minus rank 1: −0.100" in ended.out
    found = result(tmp_path, "ranks")
    assert found["personal_high_minus_low"]["difference"] == pytest.approx(0)
    assert {rank: gap["difference"] for rank, gap in found["swapped_minus_own"].items()} == pytest.approx(
        {"1": 0.3, "4": 0.3}
    )
    assert "another's vectors minus one's own at personal rank 4: 0.300" in ended.out


def test_trade_off_puts_each_method_of_each_task_at_its_parameters(canned, command, tmp_path, tiny_base, quick_figures):
    ended = command(
        "explore", "trade-off", "--base-model", tiny_base, "-c", 'layers="1,2"', "--tasks", "LaMP_2N,LaMP_7",
        "--methods", "perfit,perfit-stage1", "--out", tmp_path,
    )  # fmt: skip
    assert ended.code == 0
    points = result(tmp_path, "trade-off", "tasks")["points"]
    assert [(p["task"], p["method"], p["metric"], p["arm"], p["percent"]) for p in points] == [
        ("LaMP_2N", "perfit", "accuracy", "stage1+2", 2.5),
        ("LaMP_2N", "perfit-stage1", "accuracy", "stage1+2", 2.5),
        ("LaMP_7", "perfit", "rougeL", "stage1+2", 2.5),
        ("LaMP_7", "perfit-stage1", "rougeL", "stage1+2", 2.5),
    ]


@pytest.mark.nightly
@pytest.mark.parametrize("name, swept", [("layers", ["--every", "2"]), ("ranks", ["--ranks", "1,2"])])
def test_a_sweep_repeats_itself_with_the_same_seed_and_keeps_its_cells(
    name, swept, command, kept_worker, tmp_path, tiny_base
):
    def swept_in(folder, *more):
        ended = command("explore", name, *TINY, "--base-model", tiny_base, "-c", SHORT, *swept, "--out", folder, *more)
        assert ended.code == 0, ended.err
        found = result(folder, name)
        rows = [*found.get("singles", []), *found.get("sets", []), *found.get("grid", [])]
        return ended.out, [(row["arms"], row["users"]) for row in rows]

    first, again = swept_in(tmp_path / "a"), swept_in(tmp_path / "b")
    assert first[1] == again[1]
    said, kept = swept_in(tmp_path / "a")
    assert "; 0 to run" in said and kept == first[1]
    assert swept_in(tmp_path / "a", "--seed", "1")[1] != first[1]


@pytest.mark.nightly
def test_learned_and_steer_stand_beside_the_edits_that_were_trained(command, kept_worker, tmp_path, tiny_base):
    few = ("--base-model", tiny_base, "--retrieved", "2", "-c", SHORT, "-c", 'layers="1,2"', "--out", tmp_path)
    ended = command("explore", "learned", "--data", "synthetic:6", "--users", "6", *few)
    assert ended.code == 0, ended.err
    learned = result(tmp_path, "learned")
    assert learned["users"] == [f"test-{n:04d}" for n in range(6)] and learned["of"]["trainings"] == 2
    assert set(learned["groups"]["habits"]) == {"opener", "sign-off"}
    assert len(learned["functions"]["trainings"]) == 2
    ended = command("explore", "steer", "--data", "synthetic:4", "--users", "3", *few)
    assert ended.code == 0, ended.err
    steer = result(tmp_path, "steer")
    bare = steer["doses"].index(0.0)
    for what in ("losses", "scores"):
        assert steer[what]["own"][0][bare] == steer[what]["other"][0][bare]  # no dose, no direction
    assert steer["metric"] == "rougeL" and set(steer["trained_scores"]) == set(steer["trained"])
    assert command("explore", "report", "--out", tmp_path).code == 0
