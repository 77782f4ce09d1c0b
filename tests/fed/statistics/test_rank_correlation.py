"""Spearman's rank correlation against a hand-made case, and its p against its nominal rate."""

import numpy as np
import pytest

from fed.statistics.rank_correlation import ranks, spearman


def test_equal_values_share_their_mean_rank():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4, 1, 4, 2, 4]


def test_rho_is_the_textbook_s_and_one_for_any_rising_function():
    iq, hours = (
        np.array([106.0, 100, 86, 101, 99, 103, 97, 113, 112, 110]),
        np.array([7.0, 27, 2, 50, 28, 29, 20, 12, 6, 17]),
    )
    assert spearman(iq, hours)[0] == pytest.approx(-29 / 165)  # 1 − 6 · 194 / (10 · 99)
    rho, p = spearman(iq, np.exp(iq / 10))
    assert rho == pytest.approx(1) and p < 0.001


def test_unrelated_measures_alarm_at_the_nominal_rate():
    rng = np.random.default_rng(0)
    alarms = sum(spearman(*rng.standard_normal((2, 12)))[1] < 0.05 for _ in range(40))
    assert alarms <= 6


def test_what_is_the_same_for_all_or_of_two_users_has_no_correlation():
    assert spearman(np.ones(5), np.arange(5.0)) is None
    assert spearman(np.arange(2.0), np.arange(2.0)) is None
