"""A labelled task through the whole app, by every method: a label is chosen, kept by the user, and scored alike."""

from __future__ import annotations

import json

import pytest

from fed.lamp import submission
from fed.lamp.tasks import get_task
from fed.settings.methods import METHODS
from server_strategy.run import run as run_server
from tests.integration.in_process import RUN_ID, RecordingGrid, federate

pytest.importorskip("peft")
pytest.importorskip("datasets")
STARS = get_task("LaMP_3")


@pytest.fixture
def stars(tmp_path, monkeypatch):
    """A LaMP_3 folder of four others and three test users, in OPPU's layout."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "LaMP_3"
    folder.mkdir()

    def user(name, number):
        profile = [{"id": str(i), "text": f"{name} item {i}", "score": str(1 + (i + number) % 5)} for i in range(4)]
        queries = [
            {"id": f"{name}{i}", "input": f"{STARS.instruction}{name} asks {i}", "gold": str(1 + i)} for i in range(3)
        ]
        return {"user_id": name, "profile": profile, "query": queries}

    for file, names in (("user_others", "wxyz"), ("user_top_100_history", "abc")):
        (folder / f"{file}.json").write_text(json.dumps([user(name, i) for i, name in enumerate(names)]))
    return folder


@pytest.mark.parametrize("method", METHODS)
def test_every_method_chooses_labels_and_users_keep_their_answers(settings, stars, method):
    run = settings(
        method=method, task="LaMP_3", data=str(stars), answer="choice", max_length=256, max_queries=0, rounds=1
    )
    report, grid, folder = federate(run, 1)
    arms = {arm for arm, found in report["arms"].items() if found is not None}
    for arm in arms:
        files = sorted((folder / "vault").glob(f"*/answers/{arm}.json"))
        assert len(files) == 3
        answers = submission.read(files, STARS)
        assert set(answers.values()) <= set(STARS.labels)
        scores = submission.score(STARS, submission.golds_of(stars, STARS), answers)
        assert {key: report["arms"][arm][key] for key in scores} == pytest.approx(scores)
    assert all(kind in ("MetricRecord", "ConfigRecord") for kind in _kinds_of_evaluation(grid))


def test_a_device_of_its_own_writes_no_answers(settings, stars, tmp_path, open_policy):
    run = settings(task="LaMP_3", data=str(stars), answer="choice", cohorts="all", rounds=1, fraction=1.0)
    grid = RecordingGrid(1, run)
    (context,) = grid._contexts.values()
    context.node_config = {"user-id": "a", "vault": str(tmp_path / "own"), "policy": open_policy}
    report = run_server(grid, run, run.run_folder(RUN_ID))
    assert [user["user_id"] for user in report["users"]] == ["a"] and report["arms"]["stage1+2"]["mae"] >= 0
    assert list((tmp_path / "own").glob("a-*/*.safetensors"))
    assert not list(tmp_path.rglob("answers"))


def _kinds_of_evaluation(grid):
    """What the replies to the evaluation are made of: no text of an answer has a place in a number."""
    return {
        type(record).__name__
        for way, _, message in grid.seen
        if way == "up" and message.metadata.message_type == "evaluate"
        for record in message.content.values()
    }
