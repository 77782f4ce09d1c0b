"""Runs of methods that federate nothing, on devices without a row for stage 1: few rows, or bare tweets."""

from __future__ import annotations

import pytest

from server_strategy.grid.nodes import RunError
from tests.integration.in_process import federate
from tests.integration.test_leaving import devices, tweet

SHORT = {"cohorts": "all", "min_nodes": 2, "max_items": 0, "max_queries": 0, "max_new_tokens": 0}


def bare(text, number):
    return {"text": text, "gold": text}


@pytest.mark.parametrize(
    ("method", "sizes", "row"),
    [
        ("reft-p", [(5, 9)], tweet),  # too few items, which a strict device greets as none
        ("stylevector", [(12, 1)], bare),  # items without inputs, and one query, which is for the test
        ("non-personalized", [(5, 3), (12, 0)], bare),
    ],
)
def test_devices_without_a_stage_1_row_run_what_federates_nothing(
    settings, tiny_base, tmp_path, capsys, method, sizes, row
):
    configs = devices(tmp_path, tiny_base, sizes, row)
    report, grid, _ = federate(settings(**SHORT | {"min_nodes": len(configs)}, method=method), configs)
    assert report["stopped"] is None and report["rounds"] == [] and len(report["users"]) == len(configs)
    assert not [message for _, _, message in grid.seen if message.metadata.message_type == "train"]
    assert "no row to federate on" not in capsys.readouterr().out


def test_where_the_method_federates_it_is_an_error_that_nobody_has_a_row(settings, tiny_base, tmp_path, capsys):
    configs = devices(tmp_path, tiny_base, [(5, 3), (6, 3)], tweet)
    with pytest.raises(RunError, match="stage 1 needs a user with rows to train on, and no user has any"):
        federate(settings(**SHORT), configs)
    said = capsys.readouterr().out
    assert [said.count(f"user 'user-{number}' has no row to federate on") for number in (0, 1)] == [1, 1]
