"""One client of four sends what is malformed: it is refused by name, the run goes on, and the report is written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Error, Message, MetricRecord, RecordDict
from safetensors.torch import load_file

from fed.base import facts
from fed.settings.settings import Settings
from server_strategy.grid.nodes import RunError
from server_strategy.run import run as serve_on
from tests.server_strategy.screening.canned import (
    DEVICES,
    FIRST,
    FOUR,
    LATE,
    LIAR,
    SKELETON,
    USERS,
    Canned,
    Lie,
    greeting,
    serve,
    written,
)
from tests.server_strategy.screening.lies import GREETINGS, LATER, PACKED, STAGE1, no_content

LIED = "user-2"
OTHERS = [user for user in USERS if user != LIED]


def edit_of(run: Settings) -> dict:
    return load_file(run.run_folder(7) / "collective.safetensors")


@pytest.fixture(scope="module")
def mean_of_others(settings_in, tmp_path_factory) -> dict:
    """The collective edit of a run whose liar gave up instead of lying."""
    run = settings_in(tmp_path_factory.mktemp("others"), **FOUR, fraction=1.0, max_items=0)
    serve(run, {"train": lambda _, message: Message(Error(7, "gone"), reply_to=message)})
    return edit_of(run)


def test_the_tables_are_as_long_as_promised_and_an_honest_run_has_no_error(four, mean_of_others):
    assert (len(STAGE1), len(GREETINGS), len(LATER)) == (48, 43, 27)
    told = serve(four())
    assert told["errors"] == [] and told["stopped"] is None
    assert [user["user_id"] for user in told["users"]] == USERS
    averaged = edit_of(four())
    assert any(bool((averaged[name] != mean_of_others[name]).any()) for name in averaged)


@pytest.mark.parametrize(("lie", "words"), {**STAGE1, **PACKED}.values(), ids=[*STAGE1, *PACKED])
def test_a_malformed_reply_of_stage_1_is_that_users_error_and_the_mean_is_that_of_the_others(
    four, mean_of_others, lie: Lie, words: str, capsys
):
    run = four()
    told = serve(run, {"train": lie})
    (error,) = told["errors"]
    assert (error["phase"], error["round"], error["user"]) == ("stage1", 1, LIED) and words in error["reason"]
    assert [user["user_id"] for user in told["users"]] == USERS  # the later phases are open to it
    assert told["arms"]["stage1+2"] is not None and told["stopped"] is None
    averaged = edit_of(run)
    assert averaged.keys() == mean_of_others.keys()
    assert all(bool((averaged[name] == mean_of_others[name]).all()) for name in averaged)
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(f"warning: user '{LIED}', round 1: ") for line in lines) == 1
    assert not any("\x1b" in line or line.startswith("error:") for line in lines)


@pytest.mark.parametrize(("lie", "words"), GREETINGS.values(), ids=GREETINGS)
def test_a_malformed_greeting_leaves_its_device_out(four, lie: Lie, words: str, capsys):
    told = serve(four(), {"query.hello": lie})
    (error,) = told["errors"]
    assert error["phase"] == "greeting" and str(LIAR) in error["reason"] and words in error["reason"]
    assert [user["user_id"] for user in told["users"]] == OTHERS
    assert told["rounds"][0]["users"] == 3 and told["stopped"] is None
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("warning: ") for line in lines) == 1
    assert not any("\x1b" in line or line.startswith("error:") for line in lines)


@pytest.mark.parametrize(("kind", "lie", "words"), LATER.values(), ids=LATER)
def test_a_malformed_later_reply_ends_the_run_for_that_user_alone(four, kind: str, lie: Lie, words: str, capsys):
    told = serve(four(), {kind: lie})
    (error,) = told["errors"]
    assert error["user"] == LIED and words in error["reason"]
    assert error["phase"] == ("stage1" if kind == "query.adopt" else "stage2" if "personalize" in kind else "evaluate")
    tested = [user["user_id"] for user in told["users"]]
    assert tested == (USERS if kind == "train.personalize" else OTHERS)
    assert told["stopped"] is None and told["arms"]["stage1+2"] is not None
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(f"warning: user '{LIED}' could not ") for line in lines) == 1
    assert not any("\x1b" in line or line.startswith("error:") for line in lines)


@pytest.mark.parametrize("kind", ["train", *LATE])
def test_a_run_that_ends_for_everybody_says_so_in_its_report(settings, kind):
    run = settings(**FOUR, fraction=1.0, max_items=0)  # the page of a broken-off run is drawn too
    with pytest.raises(RunError, match="none of 4 users could"):
        serve(run, {kind: no_content}, range(FIRST, FIRST + DEVICES))
    told = written(run)
    assert "none of 4 users could" in told["stopped"] and told["users"] == []
    assert {error["user"] for error in told["errors"]} == set(USERS)
    assert len(told["rounds"]) == (kind != "train")
    assert (Path(run.run_folder(7)) / "report.html").is_file()


def test_the_reply_of_pooled_training_is_held_against_the_greetings_too(four):
    def too_many_users(_, message):
        metrics = MetricRecord({"users": 5, "num-examples": 20, "train-loss": 1.0})
        return RecordDict({"0/arrays": message.content.array_records["arrays"], "0/metrics": metrics})

    with pytest.raises(RunError, match=r"pooled training failed: users must be a whole number in 1..4, got 5"):
        serve(four(stage1="pooled"), {"train.pooled": too_many_users}, [FIRST])


def test_with_fewer_replies_than_min_replies_the_run_ends_and_says_what_it_has(four):
    run = four(min_replies=4)
    with pytest.raises(RunError, match="min-replies = 4 users' replies must be left to average, got 3 of 4"):
        serve(run, {"train": STAGE1["NaN"][0]})
    told = written(run)
    assert "min-replies" in told["stopped"] and {error["user"] for error in told["errors"]} == {LIED}


def test_the_report_of_a_run_that_was_gone_on_with_has_the_errors_of_before_and_each_once(four):
    last = FIRST + DEVICES - 1

    def unwilling(content, message):
        return no_content(content, message) if message.metadata.dst_node_id == last else content

    def killed(_, message):
        raise KeyboardInterrupt

    def served(settings, *of_rounds):
        trains = iter(of_rounds)
        lies = {"query.hello": unwilling, "train": lambda content, message: next(trains)(content, message)}
        return serve(settings, lies, [LIAR, last])["errors"]

    run, nan = four(rounds=2), STAGE1["NaN"][0]
    whole = served(run, nan, nan)
    assert [(error["phase"], error["round"]) for error in whole] == [("greeting", 0), ("stage1", 1), ("stage1", 2)]
    with pytest.raises(KeyboardInterrupt):
        served(run, nan, killed)
    assert served(replace(run, resume=str(run.run_folder(7))), nan) == whole


def test_a_second_device_of_a_user_is_told_to_stop_and_the_first_goes_on(four, capsys):
    run = four()
    grid = Canned(run, {"query.hello": lambda _content, _message: greeting(0)})
    serve_on(grid, run, run.run_folder(7))
    assert [user["user_id"] for user in written(run)["users"]] == OTHERS
    out = capsys.readouterr().out
    assert f"a user must live on one node, but '{USERS[0]}' is on nodes {FIRST} and {LIAR}" in out
    assert "a user takes part with one device, so stop the other" in out
    assert grid.refusals == {LIAR: f"user '{USERS[0]}' takes part with another device already; stop one of the two"}


def test_the_servers_own_copy_of_the_base_decides_against_most_nodes(four, monkeypatch):
    lie = GREETINGS["another base"][0]
    liars = range(FIRST, FIRST + DEVICES - 1)  # three of four
    with_copy, without_copy = four(), four(output_dir=str(four().output_dir) + "-none")
    monkeypatch.setattr(facts, "here", lambda source: ("0123456789abcdef", SKELETON))
    told = serve(with_copy, {"query.hello": lie}, liars)
    assert [user["user_id"] for user in told["users"]] == USERS[-1:] and len(told["errors"]) == 3
    monkeypatch.setattr(facts, "here", lambda source: None)
    assert [user["user_id"] for user in serve(without_copy, {"query.hello": lie}, liars)["users"]] == USERS[:-1]
