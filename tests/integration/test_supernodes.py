"""Which node hosts whom changes nothing but rounding."""

from __future__ import annotations

import pytest

from fed.communication.ledger import DIRECTIONS, PHASES
from tests.integration.in_process import federate


def all_losses(report: dict, arms: tuple[str, ...]) -> list[float]:
    pooled = [report["arms"][arm]["loss_per_token"] for arm in arms]
    own = [user["arms"][arm]["loss_per_token"] for user in report["users"] for arm in arms]
    return pooled + own + [row["loss"] for row in report["rounds"]]


@pytest.mark.parametrize("cohorts", ["paper", "all"])
@pytest.mark.parametrize("nodes", [2, 6, 12])
def test_any_number_of_supernodes_gives_the_same_losses_in_float64(settings, on_one_node, cohorts, nodes):
    arms = ("base", "stage1", "stage1+2")
    one = on_one_node(cohorts)
    many, _, _ = federate(settings(dtype="float64", wire_dtype="float64", cohorts=cohorts), nodes)
    assert all_losses(many, arms) == pytest.approx(all_losses(one, arms), rel=1e-9, abs=1e-9)
    assert [user["user_id"] for user in many["users"]] == [user["user_id"] for user in one["users"]]


def test_two_runs_with_the_same_seed_and_nodes_are_identical_bit_for_bit(settings, plain_run):
    again, _, _ = federate(settings(), 2)
    assert again["arms"] == plain_run.report["arms"]
    assert again["users"] == plain_run.report["users"]


def test_another_seed_gives_another_run(settings, plain_run):
    other, _, _ = federate(settings(seed=plain_run.settings.seed + 1), 2)
    assert other["arms"]["stage1"] != plain_run.report["arms"]["stage1"]


def test_a_user_alone_on_its_node_has_no_swapped_arm(settings):
    report, _, _ = federate(settings(stage1_users=2, stage2_users=3), 3)
    assert report["arms"]["swapped"] is None
    assert all(user["arms"]["swapped"] is None for user in report["users"])


def test_the_ledger_counts_payloads_of_every_user_as_the_edit_times_its_messages(settings):
    short = settings(stage1_users=4, fraction=0.5)
    report, _, folder = federate(short, 2)
    edit = 4 * report["parameters"]["stage1"]
    totals = report["bytes"]
    testers = len(report["users"])
    assert totals["stage1"]["down"]["payload"] == edit * (short.rounds * 2 + testers)
    assert totals["stage1"]["up"]["payload"] == edit * short.rounds * 2
    for phase in ("stage2", "evaluate"):
        for direction in DIRECTIONS:
            cell = totals[phase][direction]
            assert (cell["payload"], cell["record"], cell["messages"]) == (0, 0, testers)
            assert cell["wire"] > 0
    rows = (folder / "bytes.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(totals[p][d]["messages"] for p in PHASES for d in DIRECTIONS)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_narrow_wire_dtype_halves_what_users_send(settings, plain_run, dtype):
    wide = plain_run.report
    narrow, _, _ = federate(settings(wire_dtype=dtype), 2)
    sent = [report["bytes"]["stage1"]["up"]["payload"] for report in (narrow, wide)]
    assert 2 * sent[0] == sent[1]
    assert narrow["arms"]["stage1"]["loss_per_token"] == pytest.approx(
        wide["arms"]["stage1"]["loss_per_token"], rel=0.01
    )


NIGHTLY = [(s, "svd") for s in ("fedavgm", "fedadagrad", "fedyogi", "fedprox")]
NIGHTLY += [(s, "fedavg") for s in ("fedavg", "fedadam")]
NIGHTLY += [("fedavg", a) for a in ("polar", "median", "multikrum", "exact")]


@pytest.mark.parametrize(
    ("strategy", "average"),
    [
        ("fedadam", "svd"),
        ("fedavg", "krum"),
        ("fedyogi", "frozen-r"),
        *(pytest.param(*pair, marks=pytest.mark.nightly) for pair in NIGHTLY),
    ],
)
def test_a_whole_run_with_any_strategy_and_average(settings, strategy, average):
    report, _, _ = federate(settings(strategy=strategy, average=average, fraction=1.0, max_new_tokens=0), 2)
    assert [row["users"] for row in report["rounds"]] == [6, 6]
    assert report["arms"]["stage1"]["loss_per_token"] != report["arms"]["base"]["loss_per_token"]
