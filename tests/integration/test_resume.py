"""A run that is broken off anywhere is gone on with, and ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import shutil

import pytest

from fed.privacy.tensor_files import fingerprint, read_tensors
from fed.privacy.vault import PERSONAL, Vault
from server_strategy.checkpoint import checkpoint
from server_strategy.grid.nodes import RunError
from tests.integration.in_process import federate

SMALL = {"data": "synthetic:4", "max_items": 2, "max_queries": 1, "max_new_tokens": 0, "fraction": 1.0}


class Killed(BaseException):
    """What ends a process, which no `except Exception` sees."""


def of_a_report(report: dict) -> dict:
    """What must be equal: all but times, and what the run was started with."""
    rounds = [{key: value for key, value in row.items() if key != "seconds"} for row in report["rounds"]]
    return {key: report[key] for key in ("arms", "users", "bytes", "stage2_losses", "parameters")} | {"rounds": rounds}


def broken_off(settings, at: int, nodes: int = 2):
    """The folder of a run whose `at`-th message, from 0 on, ended its process, and the settings that resume it."""
    count = iter(range(10_000))

    def before_send(message_type):
        if next(count) == at:
            raise Killed

    with pytest.raises(Killed):
        federate(settings, nodes, before_send)
    return settings.run_folder(7)


@pytest.fixture
def short(settings, tmp_path):
    """short("name", rounds=2, …) -> settings of a run with losses alone, in a folder of that name."""

    def make(name, **changes):
        return settings(**SMALL | changes, output_dir=str(tmp_path / name))

    return make


# hello ×2, two rounds of a message to each of two nodes, adopt ×2, personalize ×2, evaluate ×2
POINTS = {2: 0, 3: 0, 4: 1, 5: 1, 6: 2, 8: 2, 9: 2, 10: 2}


@pytest.mark.parametrize("at", [at if at in (3, 6) else pytest.param(at, marks=pytest.mark.nightly) for at in POINTS])
def test_a_run_ends_bit_for_bit_wherever_it_was_broken_off(short, plain_losses, at):
    run = short("broken")
    folder = broken_off(run, at)
    assert checkpoint.read(folder).round == POINTS[at]
    resumed, grid, again = federate(short("elsewhere", resume=str(folder)), 2)
    assert again == folder and (folder / "report.json").is_file()
    assert of_a_report(resumed) == of_a_report(plain_losses.report)
    assert fingerprint(read_tensors(folder / "collective.safetensors")[0]) == plain_losses.collective
    trained = [message for way, _, message in grid.seen if way == "down" and message.metadata.message_type == "train"]
    assert len(trained) == 2 * (2 - POINTS[at])  # no finished round is done again
    rows = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    assert rows == resumed["rounds"]


@pytest.fixture(scope="module")
def plain_losses(settings_in, tmp_path_factory):
    """The unbroken run: its report, and its collective edit's fingerprint."""

    class Plain:
        run = settings_in(tmp_path_factory.mktemp("unbroken"), **SMALL)
        report, _, folder = federate(run, 2)
        collective = fingerprint(read_tensors(folder / "collective.safetensors")[0])

    return Plain


def test_stage_2_goes_on_user_by_user(short, plain_losses):
    run = short("broken")
    folder = broken_off(run, 10)  # before the evaluation's first message
    vault = Vault(folder / "vault")
    before = {user: (vault.folder(user) / PERSONAL).stat().st_mtime_ns for user in vault.users()}
    lost = sorted(before)[0]
    vault.erase(lost)
    # One of a portion is missing: the portion is trained again, and the files that were there stay.
    report, _, _ = federate(short("elsewhere", resume=str(folder)), 2)
    assert of_a_report(report) == of_a_report(plain_losses.report)
    after = {user: (vault.folder(user) / PERSONAL).stat().st_mtime_ns for user in vault.users()}
    assert {user for user in before if before[user] != after[user]} == {lost}


def test_a_server_optimizer_goes_on_with_its_moments(short):
    options = {"strategy": "fedadam", "rounds": 3, "max_items": 1}
    whole, _, _ = federate(short("whole", **options), 1)
    folder = broken_off(short("broken", **options), 3, nodes=1)  # hello, two rounds; not the third
    resumed, _, _ = federate(short("elsewhere", resume=str(folder), **options), 1)
    assert of_a_report(resumed) == of_a_report(whole)


@pytest.mark.nightly
def test_users_that_keep_an_edit_of_their_own_go_on_from_the_one_before_a_half_done_round(short):
    options = {"method": "fedreft", "rounds": 3, "fraction": 1.0}
    whole, _, _ = federate(short("whole", **options), 2)
    folder = broken_off(short("broken", **options), 7)  # hello ×2, two rounds, and half of the third
    resumed, _, _ = federate(short("elsewhere", resume=str(folder), **options), 2)
    assert of_a_report(resumed) == of_a_report(whole)


@pytest.mark.nightly
@pytest.mark.parametrize("changes", [{"method": "reft-p"}, {"stage1": "pooled"}])
def test_a_run_without_rounds_goes_on_too(short, changes):
    whole, _, _ = federate(short("whole", **changes), 2)
    last = broken_off(short("broken", **changes), 5 if "stage1" in changes else 4)
    resumed, grid, _ = federate(short("elsewhere", resume=str(last), **changes), 2)
    assert of_a_report(resumed) == of_a_report(whole)
    assert not any(message.metadata.message_type == "train.pooled" for _, _, message in grid.seen)


def refused(settings) -> str:
    with pytest.raises(RunError) as caught:
        federate(settings, 2)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_torn_or_foreign_checkpoint_is_refused_in_one_line_and_the_one_before_it_helps(short, plain_losses, tmp_path):
    folder = tmp_path / "7"
    shutil.copytree(plain_losses.folder, folder)
    assert "checkpoint" in refused(short("elsewhere", resume=str(tmp_path / "nowhere")))
    # Another run's settings, base, users.
    assert "rounds was 2" in refused(short("elsewhere", resume=str(folder), rounds=3))
    assert "stage1-lr" in refused(short("elsewhere", resume=str(folder), stage1_lr=0.004))
    # A file that was cut short, or altered.
    file = folder / checkpoint.FILE
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert "damaged" in refused(short("elsewhere", resume=str(folder)))
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    said = refused(short("elsewhere", resume=str(folder)))
    assert "damaged" in said and checkpoint.PREVIOUS in said
    # The one before it.
    (folder / checkpoint.PREVIOUS).replace(file)
    assert checkpoint.read(folder).round == 1
    report, _, _ = federate(short("elsewhere", resume=str(folder)), 2)
    assert of_a_report(report) == of_a_report(plain_losses.report)


def test_another_base_model_or_other_users_are_refused(short, plain_losses, tmp_path):
    folder = tmp_path / "7"
    shutil.copytree(plain_losses.folder, folder)
    saved = checkpoint.read(folder)
    for key, other in (("base", "f" * 16), ("users", {"stage1": {}, "stage2": {}})):
        checkpoint.write(folder, checkpoint.Checkpoint(saved.round, {**saved.identity, key: other}, saved.edit))
        assert key in refused(short("elsewhere", resume=str(folder)))


@pytest.mark.nightly
def test_a_device_that_trained_its_private_edit_in_this_run_does_not_train_again(short, tmp_path):
    node = [{"user-id": "test-0000", "vault": str(tmp_path / "vault")}]
    options = {"cohorts": "all", "fraction": 1.0, "min_nodes": 1}
    folder = broken_off(short("broken", **options), 5, nodes=node)
    (file,) = (tmp_path / "vault").glob(f"*/{PERSONAL}")
    written = file.stat().st_mtime_ns
    federate(short("elsewhere", resume=str(folder), **options), node)
    assert file.stat().st_mtime_ns == written
    shutil.rmtree(folder)
    federate(short("broken", **options | {"stage2_lr": 0.004}), node)  # other settings: trained anew
    assert file.stat().st_mtime_ns != written
