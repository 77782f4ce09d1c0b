"""Every number that leaves a device with the default policy, recorded, and the table of them in clients/PRIVACY.md."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from fed.policy.leaving import LEAVES, Leaving, leaving_of
from fed.policy.policy import STRICT
from tests.conftest import REPOSITORY
from tests.integration.in_process import federate
from tests.integration.test_extraction import texts

REPLIES = ("query.hello", "train", "query.adopt", "train.personalize", "evaluate")


def devices(tmp_path, tiny_base, sizes, row) -> list[dict[str, str]]:
    """Node configs, without a policy of their own, of devices with histories of so many (items, queries)."""
    configs = []
    for number, (items, queries) in enumerate(sizes):
        home = tmp_path / f"device-{number}"
        home.mkdir()
        lines = [row(text, number) for number, text in enumerate(texts(items, number))]
        asked = [{"input": f"say {text}", "gold": row(text, n)["gold"]} for n, text in enumerate(texts(queries, 50))]
        lines = [{key: value for key, value in line.items() if key != "gold"} for line in lines]
        (home / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines + asked))
        configs.append(
            {
                "user-id": f"user-{number}",
                "history": str(home / "history.jsonl"),
                "vault": str(home / "vault"),
                "base-model": str(tiny_base),
            }
        )
    return configs


def tweet(text, number):
    return {"text": text, "input": f"say {text}", "gold": text}


def review(text, number):
    return {"text": text, "score": str(1 + number % 5), "gold": str(1 + number % 5)}


WITHIN = {"cohorts": "all", "fraction": 1.0, "min_nodes": 3, "max_items": 0, "max_queries": 0, "rounds": 1}


@pytest.fixture(scope="module")
def recorded(settings_in, tiny_base, tmp_path_factory):
    """Two runs on strict devices, of tweets and of reviews: (reports, what left).

    What left: {(message type, record/field): [(value, the record that it stood in), …]}.
    """
    numbers: dict[tuple[str, str], list[tuple[Any, dict[str, Any]]]] = defaultdict(list)
    reports = []
    for name, row, changes in (
        ("tweets", tweet, {}),
        ("reviews", review, {"task": "LaMP_3", "answer": "choice"}),
    ):
        folder = tmp_path_factory.mktemp(name)
        configs = devices(folder, tiny_base, [(12, 9), (10, 8), (5, 3)], row)
        report, grid, _ = federate(settings_in(folder / "runs", **WITHIN | changes), configs)
        reports.append(report)
        for way, _, message in grid.seen:
            if way == "up" and not message.has_error():
                for key, record in message.content.items():
                    for field, value in record.items():
                        name = f"{key.rpartition('/')[2]}/{field}"
                        numbers[message.metadata.message_type, name].append((value, dict(record)))
    return reports, numbers


def as_row(entry: Leaving, precision: str) -> str:
    name = f"`{entry.name.removeprefix('metrics/').replace('|', '')}`"
    return f"| {entry.phase} | {name} | {entry.says} | {precision} | {entry.reveals} |"


def precision_of(entry: Leaving, values: list[float], per: list[float]) -> str:
    """In words, after a look at whether the recorded values are so."""
    k, most = STRICT.min_rows, STRICT.most_rows
    if entry.kind == "count":
        assert all(isinstance(value, int | float) and value == int(value) and value >= 0 for value in values)
        if entry.name.endswith(("examples", "count", "users")):
            return f"exact from {k} on, else 0; {most} at most"
        return f"exact, over {k} or more; else 0 or nothing"
    if entry.kind in ("loss", "score"):
        step = STRICT.loss_step if entry.kind == "loss" else STRICT.score_step
        for value, count in zip(values, per, strict=True):
            steps = value / count / step if count else 0.0
            assert math.isfinite(value) and abs(steps - round(steps)) < 1e-6 * max(1, abs(steps))
        unit = " nats" if entry.kind == "loss" else ""
        return f"the mean over {k} or more, to {step:g}{unit}; else nothing"
    return "the run's wire-dtype, of 8 rows or more" if entry.kind == "edit" else "exact"


def test_the_table_of_what_leaves_a_device_is_that_of_recorded_messages(recorded):
    _, numbers = recorded
    values_of: dict[Leaving, list[float]] = defaultdict(list)
    counts_of: dict[Leaving, list[float]] = defaultdict(list)
    for (message, name), values in numbers.items():
        entry = leaving_of(message, name)
        assert entry is not None, f"{message} sends {name}, which fed/policy/leaving.py does not list"
        for value, record in values:
            if name == "node/users":
                of_stages = json.loads(value).values()
                values_of[entry] += [float(count) for rows in of_stages for _, *counts in rows for count in counts]
            elif entry.kind in ("fact", "edit"):
                values_of[entry].append(0.0)
            else:
                values_of[entry].append(value)
                field = name.removeprefix("metrics/").rpartition("/")[0] + f"/{entry.over}"
                counts_of[entry].append(record[field] if entry.over else 1.0)
    assert [entry for entry in LEAVES if entry not in values_of] == []
    rows = [as_row(entry, precision_of(entry, values_of[entry], counts_of[entry])) for entry in LEAVES]
    document = (REPOSITORY / "clients" / "PRIVACY.md").read_text(encoding="utf-8").splitlines()
    stated = [line for line in document if line.startswith("| ") and line.split(" | ")[0][2:] in _PHASES]
    assert stated == rows


_PHASES = {entry.phase for entry in LEAVES}


def test_the_readme_s_table_has_every_phase_and_names_every_number_with_its_precision():
    lines = (REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    rows = {cell[0]: cell[1] for cell in cells if len(cell) == 3 and cell[0] in _PHASES}
    assert list(rows) == list(dict.fromkeys(entry.phase for entry in LEAVES))
    for phase, says in rows.items():
        entries = [entry for entry in LEAVES if entry.phase == phase]
        assert re.findall(r"`([^`]+)`", says) == [entry.name.partition("/")[2] for entry in entries]
        # As exactly as in clients/PRIVACY.md, which is compared with recorded messages.
        kinds = {entry.kind for entry in entries}
        assert ("exact" in says) is bool(kinds & {"fact", "edit"})
        assert (f"counts from {STRICT.min_rows}:" in says) is ("count" in kinds)
        assert (f"means to {STRICT.loss_step:g}" in says) is bool(kinds & {"loss", "score"})
    assert STRICT.loss_step == STRICT.score_step


def test_a_device_with_few_rows_trains_for_itself_and_nothing_of_it_leaves(recorded):
    reports, numbers = recorded
    for report in reports:
        assert report["rounds"][0]["users"] == 2  # the third has 5 rows: too few to federate
        few = next(user for user in report["users"] if user["user_id"] == "user-2")
        assert set(few["arms"].values()) == {None} and few["sums"] == {}
        assert report["arms"]["stage1+2"]["loss_per_token"] > 0
    assert sorted({value for value, _ in numbers["train.personalize", "metrics/num-examples"]}) == [0, 10, 12]
    assert len(numbers["train.personalize", "metrics/epoch-1"]) == 4


def test_no_reply_of_a_device_says_how_long_it_worked_or_names_a_single_row(recorded):
    _, numbers = recorded
    assert {message for message, _ in numbers} == set(REPLIES)
    assert not [name for _, name in numbers if "timing" in name or "row" in name]


@pytest.mark.parametrize("average", ["svd", "fedavg"])
def test_a_run_goes_on_where_devices_keep_losses_or_scores_to_themselves(settings, tiny_base, tmp_path, average):
    configs = devices(tmp_path, tiny_base, [(12, 9), (10, 8)], tweet)
    for config, kept_back in zip(configs, ("losses", "scores"), strict=True):
        (tmp_path / f"{kept_back}.toml").write_text(f"{kept_back} = false\n")
        config["policy"] = str(tmp_path / f"{kept_back}.toml")
    report, grid, _ = federate(settings(**WITHIN | {"min_nodes": 2, "average": average}), configs)
    first, second = (user["arms"]["stage1+2"] for user in report["users"])
    assert "rougeL" in first and "loss_per_token" not in first
    assert "loss_per_token" in second and "rougeL" not in second
    assert report["rounds"][0]["users"] == 2 and report["rounds"][0]["loss"] > 0
    # Where nobody tells a loss, there is none.
    configs[1]["policy"] = configs[0]["policy"]
    for config in configs:  # another run: its settings are others
        (Path(config["vault"]) / "journal.json").unlink()
    again, _, _ = federate(settings(**WITHIN | {"min_nodes": 2, "rounds": 2, "average": average}), configs)
    assert [row["loss"] for row in again["rounds"]] == [None, None] and again["stage2_losses"] == []
