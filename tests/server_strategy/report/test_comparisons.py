"""Comparisons for people: one word a comparison, and only where the two can be told apart."""

import pytest

from server_strategy.report.comparisons import comparison, comparisons_table, judged, users_better
from server_strategy.report.tables import METRICS, render

LOSS, ROUGE = (next(m for m in METRICS if m.key == key) for key in ("loss_per_token", "rougeL"))


def row(difference, low, high, p, *, metric="loss_per_token", a="stage1", b="stage1+2", users=8):
    return {"a": a, "b": b, "metric": metric, "difference": difference, "low": low, "high": high, "p": p,
            "p_raw": p, "p_sign_flip": p, "users": users}  # fmt: skip


@pytest.mark.parametrize(
    ("metric", "difference", "low", "high", "p", "word"),
    [
        (LOSS, -0.2, -0.3, -0.1, 0.01, "better"),
        (LOSS, 0.2, 0.1, 0.3, 0.01, "worse"),
        (ROUGE, 0.2, 0.1, 0.3, 0.01, "better"),
        (ROUGE, -0.2, -0.3, -0.1, 0.01, "worse"),
        (ROUGE, 0.2, -0.1, 0.5, 0.2, "not told apart"),
        (LOSS, -0.2, -0.3, -0.1, 0.06, "not told apart"),  # after the correction
        (LOSS, -0.2, None, None, None, "not told apart"),  # one user
    ],
)
def test_better_and_worse_need_an_interval_without_zero_and_a_small_p(metric, difference, low, high, p, word):
    assert judged(metric, row(difference, low, high, p, metric=metric.key)) == word


def test_what_was_not_compared_is_not_told_apart():
    assert judged(LOSS, None) == "not told apart"
    assert comparison({"arms": {}}, "base", "stage1", LOSS) is None  # a report written before there were comparisons


def test_a_comparison_is_found_by_its_arms_and_metric():
    rows = [row(1, 0, 2, 0.5), row(2, 1, 3, 0.5, metric="rougeL"), row(3, 2, 4, 0.5, a="base")]
    assert comparison({"comparisons": rows}, "stage1", "stage1+2", ROUGE)["difference"] == 2
    assert comparison({"comparisons": rows}, "base", "stage1+2", LOSS)["difference"] == 3
    assert comparison({"comparisons": rows}, "base", "stage1", LOSS) is None


def test_the_table_has_a_line_a_comparison_in_100_columns():
    rows = [
        row(-0.20834, -0.30121, -0.11542, 0.0004, users=1234),
        row(0.01, None, None, None, metric="rougeL", a="stage1+2", b="swapped", users=1),
    ]
    lines = render([comparisons_table({"comparisons": rows})]).splitlines()
    first, second = (line for line in lines if "−" in line)
    assert [part.strip() for part in first.split("  ") if part.strip()] == [
        "stage 1 + 2 − stage 1", "loss per token", "-0.2083 [-0.3012, -0.1154]", "<0.001", "1,234", "better",
    ]  # fmt: skip
    assert [part.strip() for part in second.split("  ") if part.strip()] == [
        "swapped − stage 1 + 2", "ROUGE-L", "+0.0100", "–", "1", "not told apart",
    ]  # fmt: skip
    assert max(map(len, lines)) <= 100


def test_users_are_counted_as_better_worse_and_equal_and_those_without_a_number_not_at_all():
    pairs = [(0.5, 0.4), (0.4, 0.5), (0.5, 0.5), (0.9, 0.1), (0.5, None)]
    users = [{"arms": {"stage1": {"rougeL": x}, "stage1+2": None if y is None else {"rougeL": y}}} for x, y in pairs]
    assert users_better({"users": users}, ROUGE, "stage1+2", "stage1") == (1, 2, 1)
