"""`python sims/data_statistics.py`: what is counted, in both layouts and of made-up users, and how it refuses."""

import json
import statistics

import pytest

from fed.lamp.tasks import TASKS, get_task

HEADLINES = get_task("LaMP_4")


@pytest.fixture
def command(script, capsys):
    """command(*options) -> (exit code, what it said, its error line)."""

    def run(*arguments):
        code = script("data_statistics").main([str(one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def question(number, items):
    profile = [{"id": f"p{number}-{i}", "text": "one two three", "title": "old title"} for i in range(items)]
    return {"id": str(number), "input": f"{HEADLINES.instruction}four words stand here", "profile": profile}


@pytest.fixture
def lamp(tmp_path):
    """LaMP's own layout: two users of stage 1, and three to test, with histories of 4, 9 and 2 items."""
    folder = tmp_path / "LaMP_4"
    folder.mkdir()
    for split, sizes in (("train", (3, 5)), ("dev", (4, 9, 2))):
        numbers = range(10 * len(split), 10 * len(split) + len(sizes))
        questions = [question(number, items) for number, items in zip(numbers, sizes, strict=True)]
        golds = [{"id": str(number), "output": "its new headline"} for number in numbers]
        (folder / f"{split}_questions.json").write_text(json.dumps(questions))
        (folder / f"{split}_outputs.json").write_text(json.dumps({"task": "LaMP_4", "golds": golds}))
    return tmp_path


def test_rows_and_lengths_of_each_stage_are_counted_in_lamps_own_layout(command, lamp, tmp_path):
    file = tmp_path / "numbers.json"
    code, said, error = command("--data", lamp, "--json", file)
    assert code == 0 and "LaMP_4" in said and "LaMP_7" not in said, error
    stage1, stage2, test = json.loads(file.read_text())["parts"]
    assert [(one["part"], one["users"], one["rows"]) for one in (stage1, stage2, test)] == [
        ("stage 1", 2, 2), ("stage 2", 3, 15), ("test", 3, 3),
    ]  # fmt: skip
    many = stage2["rows_a_user"]
    expected = {"mean": 5.0, "sd": statistics.stdev([4, 9, 2]), "least": 2, "most": 9}
    assert many == pytest.approx(expected) and stage1["rows_a_user"]["sd"] == 0
    instruction = len(HEADLINES.instruction.split())
    assert stage2["prompt_words"]["mean"] == instruction + 3 + 1 and stage2["answer_words"]["mean"] == 2
    assert test["prompt_words"]["mean"] == instruction + 4 + 1 and test["answer_words"]["mean"] == 3


def test_of_lamps_own_users_those_with_the_longest_histories_are_tested(command, lamp, tmp_path):
    file = tmp_path / "numbers.json"
    assert command("--data", lamp, "--tasks", "LaMP_4", "--tested", "2", "--json", file)[0] == 0
    (_, stage2, _) = json.loads(file.read_text())["parts"]
    assert stage2["users"] == 2 and (stage2["rows_a_user"]["least"], stage2["rows_a_user"]["most"]) == (4, 9)


def test_made_up_users_of_every_task_are_counted_without_data(command, tmp_path):
    file = tmp_path / "numbers.json"
    assert command("--json", file)[0] == 0
    parts = json.loads(file.read_text())["parts"]
    assert [part["task"] for part in parts] == [task for task in TASKS for _ in range(3)]
    assert all(part["rows"] and part["users"] == 20 for part in parts)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--data", "/nowhere"), "must be 'synthetic' or an existing folder"),
        (("--tasks", "LaMP_9"), "the task must be one of"),
        (("--tested", "-1"), "--tested must not be negative, got -1"),
    ],
)
def test_a_mistake_is_one_line(command, arguments, words):
    code, said, error = command(*arguments)
    assert code == 1 and said == "" and error.startswith("error: ") and words in error and error.count("\n") == 1
