"""The plain-text tables and the verdict: exact sizes, honest comparisons, missing arms."""

import math

import pytest

from server_strategy.report.tables import arms_table, best_arms, bytes_table, human_bytes, metrics_of, render, verdict


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


def test_the_verdict_of_a_run_in_the_expected_order():
    assert verdict(report(4.608, 3.876, 3.829, 3.894)) == [
        "Stage 1 + 2 lowers loss per token from 4.61 to 3.83.",
        "The private part helps: stage 1 alone reaches 3.88.",
        "Swapping users' private parts raises loss per token from 3.83 to 3.89, as it should if they are personal.",
        "Every metric keeps the expected order: base, stage 1, stage 1 + 2, and own better than swapped.",
    ]


def test_the_verdict_says_so_where_the_order_does_not_hold():
    text = " ".join(verdict(report(2.220, 0.972, 0.982, 0.981)))
    assert "The private part does not help on average: stage 1 alone reaches 0.972." in text
    assert "lowers loss per token from 0.982 to 0.981: this run does not show that they are personal." in text
    assert "loss per token: stage 1 + 2 is not better than stage 1" in text
    assert "loss per token: stage 1 + 2 is not better than swapped" in text
    assert "keeps the expected order" not in text


def test_the_verdict_of_a_run_that_made_the_model_worse():
    assert verdict(report(2.0, 2.5, 3.0, 2.9))[0] == "Stage 1 + 2 raises loss per token from 2.00 to 3.00 (worse)."


def test_the_verdict_without_a_swap_test_or_without_stage_2_claims_nothing_about_it():
    no_swap = " ".join(verdict(report(4.6, 3.9, 3.8, None)))
    assert "There is no swap test" in no_swap and "expected order" not in no_swap
    assert verdict(report(4.6, 3.9, None, None)) == ["Stage 1 lowers loss per token from 4.60 to 3.90."]
    assert verdict(report(None, None, None, None)) == ["No arm could be computed, so there is nothing to compare."]


def test_the_verdict_warns_when_the_swapped_average_is_over_fewer_users():
    one = {"loss_per_token": 1.0}
    users = [{"arms": {"stage1+2": one, "swapped": one}}, {"arms": {"stage1+2": one, "swapped": None}}]
    text = " ".join(verdict(report(4.6, 3.9, 3.8, 3.9, users=users)))
    assert "1 of 2 users had nobody to swap with" in text
    assert "nobody to swap" not in " ".join(verdict(report(4.6, 3.9, 3.8, 3.9, users=users[:1])))


def test_the_verdict_of_a_diverged_run_does_not_praise_it():
    text = " ".join(verdict(report(4.6, 3.9, math.nan, 3.8)))
    assert "no finite difference" in text and "does not help" in text and "does not hold" in text
