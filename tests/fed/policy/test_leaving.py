"""What becomes of a number on its way out of a device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.policy import leaving
from fed.policy.policy import STRICT, Policy

SUMS = {"count": 8.0, "tokens": 100, "eos_tokens": 8, "nll": 123.456, "nll_eos": 4.0, "rougeL": 3.33}


def arms(sums, *names):
    return {f"{arm}/{name}": value for arm in names for name, value in sums.items()}


def test_a_training_s_loss_is_rounded_from_so_many_rows_on_and_does_not_leave_below():
    values = {"num-examples": 8, "steps": 2, "epoch-1": 2.3456, "epoch-2": 1.01}
    left = leaving.training_numbers(STRICT, "train.personalize", values)
    assert left == {"num-examples": 8, "steps": 2, "epoch-1": pytest.approx(2.35), "epoch-2": pytest.approx(1.0)}
    few = leaving.training_numbers(STRICT, "train.personalize", values | {"num-examples": 7})
    assert few == {"num-examples": 0, "steps": 0}
    silent = leaving.training_numbers(Policy(losses=False), "train.personalize", values)
    assert silent == {"num-examples": 8, "steps": 2}
    exact = leaving.training_numbers(Policy(loss_step=0), "train", {"num-examples": 8, "train-loss": 2.3456})
    assert exact["train-loss"] == 2.3456


def test_a_count_is_cut_at_the_limit_and_what_is_not_listed_does_not_leave():
    values = {"num-examples": 10**12, "train-loss": 1.0, "tokens-of-row-1": 5}
    left = leaving.training_numbers(STRICT, "train", values)
    assert left == {"num-examples": 4096, "train-loss": 1.0}
    assert [leaving.counted(STRICT, n) for n in (0, 7, 8, 5000)] == [0, 0, 8, 4096]


def test_the_means_of_the_evaluation_s_sums_are_rounded_and_too_few_queries_say_nothing():
    left = leaving.test_sums(STRICT, arms(SUMS, "base", "stage1+2"))
    assert set(left) == set(arms(SUMS, "base", "stage1+2"))
    assert left["base/nll"] == pytest.approx(125.0) and left["base/nll_eos"] == pytest.approx(4.0)  # 1.25, 0.5
    assert left["base/rougeL"] == pytest.approx(3.2)  # 0.4 a query
    assert left["base/tokens"] == 100 and left["base/count"] == 8
    assert leaving.test_sums(STRICT, arms(SUMS | {"count": 7.0}, "base")) == {}
    without_answers = {name: SUMS[name] for name in ("tokens", "eos_tokens", "nll", "nll_eos")}
    assert leaving.test_sums(STRICT, arms(without_answers, "base"))
    assert leaving.test_sums(STRICT, arms(without_answers | {"eos_tokens": 7}, "base")) == {}


def test_counts_by_label_never_add_up_to_more_queries_than_there_were():
    golds = {f"gold/{label}": 1.0 for label in range(12)}
    left = leaving.test_sums(STRICT, arms(golds | {"count": 12.0, "correct": 3.0}, "base"))
    assert left["base/gold/1"] == pytest.approx(0.6)  # 1 of 12 is 0.083, down to 0.05
    assert sum(value for name, value in left.items() if "gold/" in name) <= 12
    whole = leaving.test_sums(STRICT, arms({"count": 8.0, "gold/a": 8.0, "gold/b": 0.0}, "base"))
    assert whole["base/gold/a"] == pytest.approx(8.0) and whole["base/gold/b"] == 0


def test_losses_and_scores_can_be_kept_back_with_their_counts():
    only_scores = leaving.test_sums(Policy(losses=False), arms(SUMS, "base"))
    assert set(only_scores) == {"base/count", "base/rougeL"}
    only_losses = leaving.test_sums(Policy(scores=False), arms(SUMS, "base"))
    assert set(only_losses) == {"base/tokens", "base/eos_tokens", "base/nll", "base/nll_eos"}


@given(st.floats(0, 1e6), st.integers(1, 10**6), st.sampled_from([0.01, 0.05, 0.25]))
def test_the_mean_that_leaves_is_a_multiple_of_the_step_and_at_most_half_a_step_off(total, count, step):
    rounded = leaving._rounded(total, count, step)
    steps = rounded / count / step
    assert abs(steps - round(steps)) < 1e-6 * max(1, abs(steps))
    assert abs(rounded - total) / count <= step / 2 * (1 + 1e-6) + 1e-9 * total / count


def test_every_listed_number_is_found_by_its_own_name():
    for one in leaving.LEAVES:
        name = one.name.replace("metrics/*", "metrics/base").replace("*", "1")
        assert leaving.leaving_of(one.message, name) == one
    assert leaving.leaving_of("train", "metrics/anything") is None
