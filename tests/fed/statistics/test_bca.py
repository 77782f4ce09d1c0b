"""The BCa bootstrap: what it does to symmetric and to skewed differences."""

import numpy as np
import pytest

from fed.statistics import bca


def test_one_user_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 of them, got 1"):
        bca.interval(np.array([1.0]))


def test_the_bca_interval_of_symmetric_differences_is_the_percentile_interval():
    """Bias 0 and skewness 0 move no percentile."""
    differences = np.linspace(-3, 3, 41)
    counts = np.random.default_rng(0).multinomial(41, np.full(41, 1 / 41), size=bca.DRAWS)
    plain = np.quantile(counts @ differences / 41, [0.025, 0.975])
    np.testing.assert_allclose(bca.interval(differences), plain, atol=0.03)


def test_the_bca_interval_follows_skewness():
    """Of exponential differences the true mean lies above the sample's more often: the long side is above."""
    differences = np.random.default_rng(2).exponential(size=40)
    low, high = bca.interval(differences)
    assert low < differences.mean() < high and high - differences.mean() > 1.15 * (differences.mean() - low)
    mirrored = bca.interval(-differences)
    np.testing.assert_allclose(mirrored, (-high, -low), atol=0.02)


def test_the_bca_interval_is_the_same_for_a_seed_and_a_point_without_spread():
    differences = np.random.default_rng(3).normal(size=12)
    assert bca.interval(differences, seed=5) == bca.interval(differences, seed=5) != bca.interval(differences, seed=6)
    assert bca.interval(np.full(4, 0.5)) == (0.5, 0.5)


def test_the_bca_interval_agrees_with_scipys_where_it_is_installed():
    stats = pytest.importorskip("scipy.stats")
    differences = np.random.default_rng(4).exponential(size=25)
    theirs = stats.bootstrap(
        (differences,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    np.testing.assert_allclose(bca.interval(differences), theirs, atol=0.03)
