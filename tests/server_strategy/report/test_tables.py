"""The plain-text tables: exact sizes, the best arm, missing arms."""

import math

import pytest

from server_strategy.report.tables import (
    arms_table,
    best_arms,
    bytes_table,
    human_bytes,
    metrics_of,
    p_shown,
    render,
)


def report(base, stage1, both, swapped, **extra):
    """A report whose arms have these losses per token (None: the arm could not be computed)."""
    losses = {"base": base, "stage1": stage1, "stage1+2": both, "swapped": swapped}
    arms = {arm: None if loss is None else {"loss_per_token": loss} for arm, loss in losses.items()}
    return {"arms": arms, "users": [], "bytes": {}, **extra}


def phase(payload, record, wire, messages):
    return {"payload": payload, "record": record, "wire": wire, "messages": messages}


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (1024**2 - 1, "1.00 MiB"),  # and not 1024.00 KiB
        (13_631_488 * 4 * 800, "40.62 GiB"),  # FlowerTune's Mistral-7B budget, exactly 40.625 GiB
        (5 * 1024**5, "5120.00 TiB"),
    ],
)
def test_a_size_is_written_in_binary_units(count, text):
    assert human_bytes(count) == text


def test_the_arms_table_shows_values_differences_and_the_best_arm():
    text = render([arms_table(report(4.608, 3.876, 3.829, 3.894))])
    rows = {line.split("  ")[1].strip(): line for line in text.splitlines() if line.startswith("  ")}
    assert "4.6080" in rows["base"] and "(" not in rows["base"]
    assert "3.8760 (-0.7320)" in rows["stage 1"]
    assert "3.8290 (-0.7790) *" in rows["stage 1 + 2"]
    assert "3.8940 (-0.7140)" in rows["swapped"]
    assert "lower is better" in text and text.count("*") == 2  # the legend and the best value


def test_the_ceilings_of_synthetic_users_stand_below_the_arms():
    text = render([arms_table(report(4.6, 3.9, 3.8, 3.9, synthetic_ceilings={"copying": {"rougeL": 0.59}}))])
    assert "ceiling: copying" in text and "0.59" not in text  # no arm was scored by ROUGE
    scored = report(4.6, 3.9, 3.8, 3.9, synthetic_ceilings={"copying": {"rougeL": 0.59}})
    scored["arms"]["base"]["rougeL"] = 0.4
    assert "0.5900" in render([arms_table(scored)]).split("ceiling: copying")[1]


def test_a_missing_arm_reads_not_computed():
    assert "not computed" in render([arms_table(report(4.6, 3.9, 3.8, None))])


def test_the_best_arm_follows_the_direction_of_the_metric_and_ties_are_shared():
    arms = {
        "base": {"loss_per_token": 2.0, "accuracy": 0.5},
        "stage1": {"loss_per_token": 1.0, "accuracy": 0.5},
    }
    both = {"arms": {**arms, "stage1+2": {"loss_per_token": math.nan, "accuracy": 0.2}, "swapped": None}}
    loss, accuracy = metrics_of(both)
    assert best_arms(both, loss) == {"stage1"}
    assert best_arms(both, accuracy) == {"base", "stage1"}


def test_the_bytes_table_has_exact_counts_and_their_sum():
    sizes = {
        "stage1": {"down": phase(2_000_000, 2_000_100, 2_000_300, 4), "up": phase(1536, 1600, 1700, 4)},
        "stage2": {"down": phase(0, 0, 90, 2), "up": phase(0, 0, 80, 2)},
    }
    text = render([bytes_table(report(1, 1, 1, 1, bytes=sizes))])
    for part in ("1.91 MiB (2,000,000)", "1.50 KiB (1,536)", "90 B", "1.91 MiB (2,002,170)"):
        assert part in text
    assert [line.split()[0] for line in text.splitlines() if " down " in line] == ["stage", "stage"]
    assert text.splitlines()[-1].split()[:2] == ["all", "12"]


def test_an_empty_ledger_still_gives_a_table():
    assert "all" in render([bytes_table(report(1, 1, 1, 1))])


def test_rendered_text_has_no_terminal_codes_even_where_colour_is_forced(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    text = render([arms_table(report(4.6, 3.9, 3.8, 3.85)), bytes_table(report(1, 1, 1, 1))])
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert text.endswith("\n") and not any(line != line.rstrip() for line in text.splitlines())


def test_markup_in_a_phase_name_is_printed_as_it_is():
    odd = {"[red]odd[/red]": {"up": phase(1, 2, 3, 1)}}
    assert "[red]odd[/red]" in render([bytes_table(report(1, 1, 1, 1, bytes=odd))])


def test_a_p_value_is_never_written_as_zero():
    assert [p_shown(p) for p in (None, 0.0, 0.00099, 0.001, 0.0487, 1.0)] == [
        "–", "<0.001", "<0.001", "0.001", "0.049", "1.000",
    ]  # fmt: skip
