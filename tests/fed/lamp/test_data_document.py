"""sims/DATA.md: its example records are read, in both layouts, and its table has every task's fields and words."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fed.lamp.layouts import find_files, read_users
from fed.lamp.tasks import INPUT_FIELD, TASKS, get_task

DOCUMENT = (Path(__file__).resolve().parents[3] / "sims" / "DATA.md").read_text(encoding="utf-8")
USERS, QUESTIONS, OUTPUTS = re.findall(r"```json\n(.*?)```", DOCUMENT, re.DOTALL)


def users_in(folder):
    return [
        [user for _, user in read_users(cohort, get_task("LaMP_4"))] for cohort in find_files(folder, TASKS["LaMP_4"])
    ]


def test_both_examples_are_read_as_users_with_the_same_question(tmp_path):
    oppu, lamp = tmp_path / "oppu", tmp_path / "lamp"
    for folder in (oppu, lamp):
        folder.mkdir()
    for name in ("user_others", "user_top_100_history"):
        (oppu / f"{name}.json").write_text(USERS)
    for split in ("train", "dev"):
        (lamp / f"{split}_questions.json").write_text(QUESTIONS)
        (lamp / f"{split}_outputs.json").write_text(OUTPUTS)
    for others, tested in (users_in(oppu), users_in(lamp)):
        assert others == tested
        (user,) = tested
        assert [query.gold for query in user.queries] == ["Snow, Again"]
        pair = TASKS["LaMP_4"].query_pair(user.queries[0])
        assert pair.prompt == "Generate a headline for the following article: Snow fell in the north.\nheadline:"
    assert len(json.loads(USERS)[0]["profile"]) == len(users_in(oppu)[1][0].profile) == 2


def test_the_table_has_every_tasks_fields_and_the_words_that_its_queries_begin_with():
    table = DOCUMENT.split("| task | a history item has |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == list(TASKS)
    for name, fields, words, _ in rows:
        task = TASKS[name]
        assert set(re.findall(r"`(\w+)`", fields)) - {INPUT_FIELD} == {task.source_field, task.target_field} - {None}
        start, _, end = words.partition(" … ")
        assert task.instruction.startswith(start) and task.instruction.strip().endswith(end)
