"""The t interval and its p on numbers that are done by hand; its level is simulated in `test_level`."""

import numpy as np
import pytest

from fed.statistics import paired_t


def test_the_t_interval_of_four_differences_by_hand():
    """Mean 3, s² = (4 + 1 + 1 + 4) / 3, standard error √(10/12), t of 3 degrees of freedom 3.18245."""
    low, high = paired_t.interval(np.array([1.0, 2.0, 4.0, 5.0]))
    reach = 3.18245 * (10 / 12) ** 0.5
    assert (low, high) == (pytest.approx(3 - reach, abs=1e-5), pytest.approx(3 + reach, abs=1e-5))


def test_data_sets_along_leading_axes_are_each_their_own():
    many = np.random.default_rng(0).normal(size=(3, 2, 5))
    low, high = paired_t.interval(many)
    assert low.shape == high.shape == (3, 2)
    assert (low[2, 1], high[2, 1]) == paired_t.interval(many[2, 1])


def test_the_interval_leaves_out_zero_exactly_where_p_is_below_5_percent():
    rng = np.random.default_rng(1)
    for differences in rng.normal(0.8, 1, size=(300, 6)):
        low, high = paired_t.interval(differences)
        assert (low > 0 or high < 0) == (paired_t.p_value(differences) < 0.05)


@pytest.mark.parametrize("value", [1.0, 0.1, -3.0])
def test_equal_differences_have_no_t_even_where_rounding_gives_them_a_spread(value):
    assert paired_t.p_value(np.full(7, value)) is None and paired_t.p_value(np.zeros(7)) is None
    assert paired_t.p_value(np.full(7, value) + 1e-16 * np.arange(7)) is None
    assert paired_t.p_value(value + 1e-3 * np.arange(7.0)) is not None


def test_one_user_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 of them, got 1"):
        paired_t.interval(np.array([1.0]))
