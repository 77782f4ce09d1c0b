"""Comparisons over users: which number stands for a user, the family's p, and the level of what is pooled."""

import math

import numpy as np
import pytest

from fed.answering.comparisons import compare, corrected, of_arms, user_values
from fed.answering.evaluation import arm_scores
from fed.lamp import metrics
from fed.lamp.tasks import get_task

NEWS, STARS, TWEETS = get_task("LaMP_2N"), get_task("LaMP_3"), get_task("LaMP_7")


def sums(task, golds, predictions, nll=2.0, tokens=4.0):
    return {"nll": nll, "tokens": tokens, **metrics.statistics(task, golds, predictions)}


def test_a_user_with_many_tokens_counts_as_much_as_one_with_few():
    values = user_values(TWEETS, [{"nll": 4.0, "tokens": 2.0}, {"nll": 100.0, "tokens": 100.0}])
    assert values["loss_per_token"].tolist() == [2.0, 1.0]  # mean 1.5; pooled it is 104 / 102


def test_metrics_of_one_user_are_that_users_own_scores():
    users = [sums(STARS, ["1"], ["3"]), sums(STARS, ["5", "5"], ["4", "5"])]
    assert user_values(STARS, users)["mae"].tolist() == [2.0, 0.5]
    tags = [sums(NEWS, ["crime"], ["crime"]), sums(NEWS, ["women", "travel"], ["women", "crime"])]
    assert user_values(NEWS, tags)["accuracy"].tolist() == [1.0, 0.5]


def test_pooled_metrics_have_the_jackknifes_values_whose_mean_is_the_pooled_score():
    """Squared errors 4 of 1, 1 of 2 and 0 of 1 answers: θ = √(5/4), without each user √(1/3), √(4/2), √(5/3)."""
    users = [sums(STARS, ["1"], ["3"]), sums(STARS, ["5", "5"], ["4", "5"]), sums(STARS, ["2"], ["2"])]
    values = user_values(STARS, users)["rmse"]
    without = np.sqrt([1 / 3, 4 / 2, 5 / 3])
    np.testing.assert_allclose(values, math.sqrt(5 / 4) + 2 * (without.mean() - without))
    tags = [sums(NEWS, ["crime", "women"], ["crime", "crime"]), sums(NEWS, ["travel"], ["travel"])]
    pooled = arm_scores(NEWS, [metrics.merge(tags)])["f1"]
    assert user_values(NEWS, tags)["f1"].mean() == pytest.approx(pooled)


def test_one_user_alone_has_the_pooled_score_itself():
    (value,) = user_values(STARS, [sums(STARS, ["1"], ["3"])])["rmse"]
    assert value == 2.0


def test_a_user_who_alone_has_errors_leaves_no_negative_square_behind():
    users = [sums(STARS, ["1"] * 3, ["1.1", "1.3", "1.7"]), *[sums(STARS, ["1"], ["1"])] * 4]
    assert np.isfinite(user_values(STARS, users)["rmse"]).all()


def test_a_comparison_is_the_t_interval_of_the_users_differences():
    found = compare("mae", np.array([1.0, 2.0, 4.0, 5.0]))
    reach = 3.18245 * (10 / 12) ** 0.5  # tests/fed/statistics/test_paired_t.py
    assert (found.difference, found.users, found.p_sign_flip) == (3.0, 4, 2 / 16)
    assert (found.low, found.high) == (pytest.approx(3 - reach, abs=1e-5), pytest.approx(3 + reach, abs=1e-5))
    assert found.p == found.p_raw == pytest.approx(0.0463, abs=1e-4) and found.told_apart


def test_the_sign_of_a_difference_that_is_told_apart_may_be_either():
    up, down = (compare("mae", sign * np.array([1.0, 1.1, 0.9, 1.2])) for sign in (1, -1))
    assert up.told_apart and down.told_apart and up.low > 0 > down.high
    assert not compare("mae", np.array([1.0, -1.0, 0.5, -0.6])).told_apart


def test_a_bootstrap_interval_has_the_p_of_sign_flips():
    differences = np.array([1.0, 2.0, 4.0, 5.0, 3.0, 2.5])
    found = compare("mae", differences, "bca")
    assert found.p_raw == found.p_sign_flip == 2 / 64 and found.low != compare("mae", differences).low


def test_one_user_and_numbers_that_are_not_finite_are_not_told_apart():
    alone = compare("mae", np.array([7.0]))
    assert (alone.difference, alone.low, alone.p, alone.users, alone.told_apart) == (7.0, None, None, 1, False)
    diverged = compare("loss_per_token", np.array([1.0, math.nan, 1.0]))
    assert math.isnan(diverged.difference) and diverged.p is None and not diverged.told_apart


def test_equal_differences_are_as_sure_as_their_number_and_no_surer():
    """Without spread t would be infinite; five users who all differ by one can still be chance, twenty cannot."""
    few, many = compare("mae", np.ones(5)), compare("mae", np.ones(20))
    assert few.p == 2 / 32 and not few.told_apart and (few.low, few.high) == (1.0, 1.0)
    assert many.p == 1 / 2000 and many.told_apart
    nothing = compare("mae", np.zeros(20))
    assert nothing.p == 1.0 and not nothing.told_apart


def test_a_family_is_the_pairs_of_one_metric():
    differences = np.array([1.0, 2.0, 4.0, 5.0])
    family = [compare(metric, differences) for metric in ("mae", "rmse", "mae")] + [compare("mae", np.ones(1))]
    mae, rmse, again, alone = corrected(family)
    assert mae.p == again.p == pytest.approx(2 * mae.p_raw) and rmse.p == rmse.p_raw and alone.p is None
    assert rmse.told_apart and not mae.told_apart  # 0.046, and twice that


def test_equal_arms_differ_in_rmse_by_the_jackknife_in_less_than_8_percent():
    """Users of unlike difficulty, 4 queries each, both arms guess alike: seen 6 % where 5 are meant."""
    rng = np.random.default_rng(0)
    sets, users = 1500, 8
    spread = rng.gamma(2, 0.5, size=(sets, users, 1))
    squares = [(np.clip(rng.normal(size=(sets, users, 4)) * spread, -4, 4) ** 2).sum(-1) for _ in range(2)]

    def values(those):
        parts = [{"nll": 1.0, "tokens": 1.0, "count": 4.0, "absolute": 1.0, "squared": float(one)} for one in those]
        return user_values(STARS, parts)["rmse"]

    told = [compare("rmse", values(a) - values(b)).told_apart for a, b in zip(*squares, strict=True)]
    assert 0.03 < np.mean(told) < 0.08


def arms_of(losses, user_names="abcd"):
    """user -> arm -> sums, from arm -> each user's loss per token (None: the user lacks the arm)."""
    return {
        name: {arm: {"nll": 4.0 * of[i], "tokens": 4.0} for arm, of in losses.items() if of[i] is not None}
        for i, name in enumerate(user_names)
    }


def test_a_runs_arms_are_compared_pair_by_pair_as_b_minus_a():
    losses = {"base": (5, 6, 7, 8), "stage1": (4, 4, 4, 4), "stage1+2": (3, 2, 4, 3), "swapped": (4, 4, 4, 5)}
    rows = of_arms(TWEETS, arms_of(losses))
    assert [(row["a"], row["b"], row["difference"], row["users"]) for row in rows] == [
        ("base", "stage1", -2.5, 4),
        ("stage1", "stage1+2", -1.0, 4),
        ("base", "stage1+2", -3.5, 4),
        ("stage1+2", "swapped", 1.25, 4),
    ]
    assert set(rows[0]) == {"a", "b", "metric", "difference", "low", "high", "p", "p_raw", "p_sign_flip", "users"}
    lone = compare("loss_per_token", np.array([-1.0, -2.0, -3.0, -4.0]))
    assert (rows[0]["low"], rows[0]["high"], rows[0]["p_raw"]) == (lone.low, lone.high, lone.p_raw)
    assert [row["p"] for row in rows] == corrected_by_hand([row["p_raw"] for row in rows])


def corrected_by_hand(p_values):
    order = sorted(p_values)
    steps = [min(1, (len(order) - k) * p) for k, p in enumerate(order)]
    return [max(steps[: order.index(p) + 1]) for p in p_values]


def test_a_pair_has_the_users_who_have_both_arms_and_none_is_no_row():
    losses = {"base": (5, 6, 7, 9), "stage1": (4, 4, 4, None), "stage1+2": (3, 2, None, 3), "swapped": (None,) * 4}
    rows = {(row["a"], row["b"]): row for row in of_arms(TWEETS, arms_of(losses))}
    assert {pair: row["users"] for pair, row in rows.items()} == {
        ("base", "stage1"): 3, ("stage1", "stage1+2"): 2, ("base", "stage1+2"): 3,
    }  # fmt: skip
    assert rows["base", "stage1+2"]["difference"] == pytest.approx((-2 - 4 - 6) / 3)


def test_one_user_is_compared_without_an_interval_and_nobody_not_at_all():
    (row,) = of_arms(TWEETS, arms_of({"base": (5,), "stage1": (4,)}, "a"))
    assert (row["difference"], row["low"], row["p"], row["users"]) == (-1.0, None, None, 1)
    assert of_arms(TWEETS, {}) == []


def test_every_metric_that_two_arms_have_is_compared():
    users = {
        name: {"base": sums(NEWS, ["crime"], ["crime"]), "stage1": sums(NEWS, ["crime"], [answer])}
        for name, answer in (("a", "crime"), ("b", "travel"))
    }
    assert [row["metric"] for row in of_arms(NEWS, users)] == ["loss_per_token", "accuracy", "f1"]
