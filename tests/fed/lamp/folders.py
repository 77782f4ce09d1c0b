"""Small data folders in OPPU's and LaMP's layouts, written for a test."""

from __future__ import annotations

import json

ITEMS = {
    "LaMP_2N": {"text": "t", "category": "crime"},
    "LaMP_3": {"text": "t", "score": 4},
    "LaMP_4": {"text": "t", "title": "h"},
    "LaMP_7": {"text": "t"},
}
GOLDS = {"LaMP_2N": "travel", "LaMP_3": 5, "LaMP_4": "h", "LaMP_7": "w"}


def a_user(user_id, task="LaMP_7"):
    return {
        "user_id": user_id,
        "profile": [{"id": n, **ITEMS[task]} for n in range(2)],
        "query": [{"id": f"q{n}", "input": f"i{n}", "gold": GOLDS[task]} for n in range(2)],
    }


def write_oppu(folder, others, test, suffix=".json"):
    folder.mkdir(parents=True, exist_ok=True)
    for stem, users in (("user_others", others), ("user_top_100_history", test)):
        lines = "\n".join(json.dumps(user) for user in users)
        (folder / f"{stem}{suffix}").write_text(json.dumps(users) if suffix == ".json" else lines, "utf-8")
    return str(folder)


def write_lamp(folder, splits, as_list=False, task="LaMP_7"):
    folder.mkdir(parents=True, exist_ok=True)
    for split, (questions, golds) in splits.items():
        (folder / f"{split}_questions.json").write_text(json.dumps(questions))
        outputs = golds if as_list else {"task": task, "golds": golds}
        (folder / f"{split}_outputs.json").write_text(json.dumps(outputs))
    return str(folder)
