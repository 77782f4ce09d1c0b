"""`sims/repeated_words.py`: answers that repeat a word, by method and arm, from the vaults of several runs."""

from __future__ import annotations

import json

import pytest

from fed.lamp import submission
from fed.lamp.tasks import get_task


def finished(folder, method, of_arms):
    """A run's folder: its report, and each user's answers arm by arm."""
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"method": method, "data": {"task": "LaMP_7"}}))
    for arm, of_users in of_arms.items():
        for user, texts in enumerate(of_users):
            answers = {f"u{user}-q{place}": text for place, text in enumerate(texts)}
            submission.write(folder / "vault" / f"u{user}" / "answers" / f"{arm}.json", get_task("LaMP_7"), answers)


def test_answers_are_counted_by_method_and_arm_over_users_and_runs(script, tmp_path):
    loop = "@user @user @user"
    finished(tmp_path / "a" / "1", "oppu", {"base": [["hi"], ["@user hi"]], "stage1": [[loop, "hi"], [loop]]})
    finished(tmp_path / "b" / "2", "oppu", {"base": [["hi"]], "stage1": [["@user @user"]]})
    finished(tmp_path / "c" / "3", "perfit", {"base": [[loop]]})
    answers, repeating = script("repeated_words").counted(tmp_path, "@user", 3)
    rows = {row: (number, repeating[row]) for row, number in answers.items() if number}
    assert rows == {
        ("LaMP_7", "oppu", "base"): (3, 0),
        ("LaMP_7", "oppu", "stage1"): (4, 2),
        ("LaMP_7", "perfit", "base"): (1, 1),
    }
    assert script("repeated_words").counted(tmp_path, "@user", 2)[1]["LaMP_7", "oppu", "stage1"] == 3


def test_a_folder_without_answers_is_refused(script, tmp_path):
    finished(tmp_path / "a", "rag", {})
    with pytest.raises(ValueError, match="must have runs with answers in their vaults"):
        script("repeated_words").counted(tmp_path, "@user", 3)
