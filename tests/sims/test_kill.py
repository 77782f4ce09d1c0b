"""Kills: what counts as lost, and by night fifty of them, each gone on with."""

from __future__ import annotations

import json
import os

import pytest
import torch
from kills import in_process, on_flower
from kills.trial import EQUAL, LOUD, MISSED, Finished, Outcome, finished, lost, table
from rich.console import Console
from simulation.processes import family

from fed.privacy.tensor_files import VaultError
from fed.privacy.vault import PERSONAL, Vault


def test_what_is_finished_is_read_from_the_folder_and_a_torn_file_is_no_user(tmp_path):
    assert finished(None) == finished(tmp_path / "nowhere") == Finished([], {})
    Vault(tmp_path / "vault").write("ann", {"W": torch.ones(2)}, base="b", collective="c", settings="{}")
    (tmp_path / "rounds.jsonl").write_text('{"round": 1, "seconds": 0.5}\n')
    done = finished(tmp_path)
    assert done.rounds == [{"round": 1, "seconds": 0.5}] and len(done.users) == 1
    (file,) = tmp_path.glob(f"vault/*/{PERSONAL}")
    file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(VaultError):
        finished(tmp_path)


def test_a_round_or_a_user_that_is_done_again_is_lost():
    before = Finished([{"round": 1, "seconds": 0.5}, {"round": 2, "seconds": 0.6}], {"ann": 1, "bob": 2})
    after = Finished([{"round": 1, "seconds": 0.5}, {"round": 2, "seconds": 0.7}], {"ann": 1, "bob": 3, "cem": 4})
    assert lost(before, before) == (0, 0)
    assert lost(before, after) == (1, 1)
    assert lost(before, Finished([], {})) == (2, 2)


@pytest.mark.parametrize(
    ("changes", "good"),
    [({}, True), ({"ended": LOUD}, True), ({"ended": "differs"}, False), ({"ended": MISSED}, False),
     ({"lost_rounds": 1}, False), ({"lost_users": 1}, False), ({"left": "2 processes"}, False)],
)  # fmt: skip
def test_a_kill_is_survived_where_nothing_is_lost_or_left_and_the_end_is_equal_or_loud(changes, good):
    fields = {"kind": "actor", "at": "1 s", "rounds": 1, "users": 0, "lost_rounds": 0, "lost_users": 0}
    outcome = Outcome(**{**fields, "ended": EQUAL, "seconds": 1.0} | changes)
    assert outcome.good is good
    console = Console(width=140, record=True)
    console.print(table([outcome]))
    assert "actor" in console.export_text()


def test_a_run_that_is_killed_before_it_says_a_word_is_a_kill_as_any_other(settings_in, tmp_path):
    ended = in_process.run(settings_in(tmp_path), tmp_path / "1", tmp_path / "log", seconds=0.0)
    assert ended.killed and ended.failed and ended.line == ""


def test_a_command_that_is_left_leaves_no_copy_of_itself(settings_in, tmp_path, monkeypatch):
    def stopped(_):
        raise KeyboardInterrupt

    before = set(family(os.getpid()))
    monkeypatch.setattr(in_process.time, "sleep", stopped)
    with pytest.raises(KeyboardInterrupt):
        in_process.run(settings_in(tmp_path), tmp_path / "1", tmp_path / "log")
    assert set(family(os.getpid())) == before


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("kills", "kinds"),
    [(45, "process,mid-message,mid-write"), (5, "actor,simulation,superlink,command,group")],
)
def test_no_kill_loses_a_finished_round_or_user_and_all_end_as_the_unbroken_run(command, tmp_path, kills, kinds):
    file = tmp_path / "kills.json"
    done = command("kill", "--kills", kills, "--kinds", kinds, "--seed", 1, "--json", file)
    outcomes = json.loads(file.read_text())["kills"]
    assert done.code == 0 and len(outcomes) == kills, done.out + done.err


@pytest.mark.nightly
def test_a_run_goes_on_by_itself_where_an_actor_is_killed_and_asks_its_users_again(short_run, tmp_path):
    runs = {}
    for kind in (None, "actor"):
        long = {"rounds": 3, "fraction": 1.0, "local_epochs": 12, "max_items": 20, "temperature": 0.0}
        ended = on_flower.run("lamp7", short_run(tmp_path / str(kind), **long), kind=kind, after=2.0)
        assert ended.code == 0 and ended.report is not None and not ended.left, ended
        runs[kind] = json.loads(ended.report.read_text())
    log = (ended.report.parent / "run.log").read_text()
    assert ended.hit and "actors of the simulation that have died: 1, all of them replaced" in log
    assert "1 of 2 SuperNodes lost a process and are asked again" in log
    assert runs["actor"]["errors"] == [] and runs["actor"]["arms"] == runs[None]["arms"]
    assert [row["loss"] for row in runs["actor"]["rounds"]] == [row["loss"] for row in runs[None]["rounds"]]
