"""The two layouts that LaMP's users come in, found on disk and read user by user.

    OPPU's    user_others.json                            -> cohort "others" (stage 1)
              user_top_100_history.json                   -> cohort "test" (stage 2, evaluation)
    LaMP's    train_questions.json + train_outputs.json   -> "others"; each question is one user
              dev_*.json, else test_*.json                -> "test", of which a run takes the longest histories

Golds of OPPU's test queries may stand in user_top_100_history_label.json instead. Users and questions may
also be in `.jsonl` files, one a line. Sources: the releases of LaMP (arXiv 2304.11406), OPPU (2402.04401).
Absent on purpose: keeping what was read, which is the business of `fed.lamp.records`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fed.lamp.json_files.reader import read_records, read_whole
from fed.lamp.parsing import Place, parse_user, question_as_user, read_field, read_id
from fed.lamp.tasks import TASKS, Task
from fed.lamp.user import User


@dataclass(frozen=True)
class Cohort:
    """A cohort's files. `golds`: LaMP's outputs, OPPU's labels; None where the queries carry their golds."""

    name: str
    users: Path
    golds: Path | None
    lamp_layout: bool


def find_files(folder: Path, task: Task) -> tuple[Cohort, Cohort]:
    """The files of both cohorts, in `folder` or in the task's folder within it. Raises ValueError."""
    if not folder.is_dir():
        rule = "data must be 'synthetic' or an existing folder"
        raise ValueError(f"{rule}; got {str(folder)!r}; correct the path, or give one: -c 'data=\"/path\"'")
    others = {name: other for other in TASKS.values() for name in other.folders if other is not task}
    if folder.name in others:
        rule = f"the folder must hold {task.name}"
        named = others[folder.name].name
        raise ValueError(f"{rule}; got {str(folder)!r}, named for {named}; change the source or the task")
    for candidate in (folder, *(folder / name for name in task.folders)):
        found = _find_oppu(candidate) or _find_lamp(candidate)
        if found:
            return found
    present = sorted(path.name for path in folder.iterdir())[:8]
    raise ValueError(
        f"{folder} or {task.folders[0]} in it must hold user_others.json and user_top_100_history.json, or "
        "train_questions.json, train_outputs.json, dev_questions.json and dev_outputs.json; "
        f"got {present}; add what is missing"
    )


def _find_oppu(folder: Path) -> tuple[Cohort, Cohort] | None:
    others = _first(folder, "user_others.json", "user_others.jsonl")
    test = _first(folder, "user_top_100_history.json", "user_top_100_history.jsonl")
    if others is None or test is None:
        return None
    labels = _first(folder, "user_top_100_history_label.json")
    return Cohort("others", others, None, False), Cohort("test", test, labels, False)


def _find_lamp(folder: Path) -> tuple[Cohort, Cohort] | None:
    def cohort(name: str, split: str) -> Cohort | None:
        questions = _first(folder, f"{split}_questions.json", f"{split}_questions.jsonl")
        outputs = _first(folder, f"{split}_outputs.json")
        return Cohort(name, questions, outputs, True) if questions and outputs else None

    others, test = cohort("others", "train"), cohort("test", "dev") or cohort("test", "test")
    return (others, test) if others and test else None


def _first(folder: Path, *names: str) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def read_users(cohort: Cohort, task: Task) -> Iterator[tuple[Place, User]]:
    """Every user of one cohort. Raises RecordError, also for a question or a gold without the other."""
    golds = {} if cohort.golds is None else read_golds(cohort.golds, task)
    unasked = dict.fromkeys(golds) if cohort.lamp_layout else {}
    for number, raw in read_records(cohort.users):
        place = Place(cohort.users, number)
        if cohort.lamp_layout:
            question_id = read_id(raw, "id", "a question", place)
            if question_id not in golds:
                rule = f"every question must have a gold in {cohort.golds.name if cohort.golds else 'its outputs'}"
                raise replace(place, user_id=question_id).error(rule, "none", "add it or remove the question")
            raw = question_as_user(raw, question_id, golds[question_id])
            unasked.pop(question_id, None)
        else:
            _add_golds(raw.get("query"), golds)
        yield place, parse_user(raw, task, place, needs_queries=cohort.name == "test")
    if unasked and cohort.golds is not None:
        rule = f"every gold must have a question in {cohort.users.name}"
        raise Place(cohort.golds).error(rule, next(iter(unasked)), "add the question or remove the gold")


def _add_golds(queries: object, golds: dict[str, Any]) -> None:
    """OPPU's labels into the queries that have no gold of their own."""
    for query in queries if golds and isinstance(queries, list) else ():
        if isinstance(query, dict) and "gold" not in query and str(query.get("id")) in golds:
            query["gold"] = golds[str(query["id"])]


def read_golds(path: Path, task: Task) -> dict[str, Any]:
    """id -> output of `{"task", "golds": [{"id", "output"}]}` or of the bare list. Raises RecordError."""
    raw = read_whole(path)
    place = Place(path)
    if isinstance(raw, dict):
        declared = str(raw.get("task", task.name)).replace("-", "_")
        if declared not in (task.name, task.name.rstrip("MN")):
            raise place.error(f"the outputs' 'task' must be {task.name}", declared, "open them as their own task")
        raw = read_field(raw, "golds", "an outputs file", place)
    if not isinstance(raw, list):
        raise place.error("the golds must be a list of {'id', 'output'}", raw, "write them as [...]")
    golds: dict[str, Any] = {}
    for number, gold in enumerate(raw, 1):
        place = Place(path, number)
        gold_id = read_id(gold, "id", "a gold", place)
        if gold_id in golds:
            raise place.error("every gold must have an id of its own", gold_id, "remove one")
        golds[gold_id] = read_field(gold, "output", "a gold", place)
    return golds
