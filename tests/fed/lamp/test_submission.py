"""LaMP's submission format: written, read back, joined and scored; ids must be the same set."""

import json
import stat

import pytest

from fed.lamp import submission
from fed.lamp.tasks import get_task

STARS, NEWS, TITLES = get_task("LaMP_3"), get_task("LaMP_2N"), get_task("LaMP_5")


def test_a_submission_is_lamps_json_and_comes_back(tmp_path):
    answers = {"31": "Ünï — code\n", "32": " politics"}
    file = tmp_path / "deep" / "answers.json"
    submission.write(file, NEWS, answers)
    assert json.loads(file.read_text("utf-8")) == {
        "task": "LaMP_2",
        "golds": [{"id": "31", "output": "Ünï — code\n"}, {"id": "32", "output": " politics"}],
    }
    assert submission.read([file], NEWS) == answers
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and [p.name for p in file.parent.iterdir()] == [file.name]


def test_another_tasks_submission_a_repeated_id_and_an_answer_that_is_no_text_are_refused(tmp_path):
    submission.write(tmp_path / "a.json", STARS, {"1": "5"})
    submission.write(tmp_path / "b.json", STARS, {"1": "4"})
    with pytest.raises(ValueError, match="'task' must be LaMP_2N; got 'LaMP_3'"):
        submission.read([tmp_path / "a.json"], NEWS)
    with pytest.raises(ValueError, match="every id must be answered once, and '1' is again in .*b.json"):
        submission.read([tmp_path / "a.json", tmp_path / "b.json"], STARS)
    (tmp_path / "c.json").write_text('{"task": "LaMP_3", "golds": [{"id": "1", "output": 5}]}')
    with pytest.raises(ValueError, match="the output of '1' must be a text, got 5"):
        submission.read([tmp_path / "c.json"], STARS)
    with pytest.raises(ValueError, match="must be an existing file, got '.*nowhere.json'"):
        submission.read([tmp_path / "nowhere.json"], STARS)


def test_scores_pair_predictions_and_golds_by_id_not_by_order():
    assert submission.score(STARS, {"1": "5", "2": "1"}, {"2": "1", "1": "4"}) == {"mae": 0.5, "rmse": 0.5**0.5}


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        ({"1": "5"}, r"1 golds are unanswered and 0 .*such as \['2'\]"),
        ({"1": "5", "2": "1", "x": "1"}, r"such as \['x'\]"),
    ],
)
def test_ids_that_differ_are_refused(predictions, words):
    with pytest.raises(ValueError, match=words):
        submission.score(STARS, {"1": "5", "2": "1"}, predictions)


def test_the_command_joins_users_and_scores_against_an_outputs_file(tmp_path, capsys):
    for user, answers in {"a": {"1": "deep nets"}, "b": {"2": "none"}}.items():
        submission.write(tmp_path / user / "answers.json", TITLES, answers)
    golds, joined = tmp_path / "dev_outputs.json", tmp_path / "all.json"
    golds.write_text(
        json.dumps({"task": "LaMP_5", "golds": [{"id": "2", "output": "x y"}, {"id": 1, "output": "deep nets"}]})
    )
    files = [str(tmp_path / user / "answers.json") for user in "ab"]
    assert submission.main(["LaMP_5", *files, "--golds", str(golds), "--join", str(joined)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert json.loads(said[-1]) == {"count": 2, "rouge1": 0.5, "rougeL": 0.5}
    assert submission.read([joined], TITLES) == {"1": "deep nets", "2": "none"}
    assert submission.main(["LaMP_5", str(joined), "--golds", str(golds)]) == 0


def test_the_command_scores_against_a_data_folders_test_users(tmp_path, capsys, monkeypatch):
    pytest.importorskip("datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def user(name, gold):
        query = {"id": f"q{name}", "input": f"{STARS.instruction}text", "gold": gold}
        return {"user_id": name, "profile": [{"id": "1", "text": "t", "score": "3"}], "query": [query]}

    for file, users in (("user_others", [user("o", "1")]), ("user_top_100_history", [user("a", "2"), user("b", "5")])):
        (tmp_path / f"{file}.json").write_text(json.dumps(users))
    submission.write(tmp_path / "mine.json", STARS, {"qa": "2", "qb": "bad"})
    assert submission.main(["LaMP_3", str(tmp_path / "mine.json"), "--data", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["mae"] == 2.0  # "bad" counts as 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["LaMP_9", "x.json", "--join", "y"], "the task must be one of"),
        (["LaMP_3", "x.json"], "give --golds FILE or --data DIR"),
        (["LaMP_3", "x.json", "--golds", "a", "--data", "b"], "not both"),
        (["LaMP_3", "/nowhere/x.json", "--join", "y"], "must be an existing file"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_1(arguments, words, capsys):
    assert submission.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and words in error and error.count("\n") == 1
