"""Student's t against closed forms and printed tables."""

import math

import pytest

from fed.statistics.student_t import quantile, two_sided


@pytest.mark.parametrize("t", [1e-8, 0.3, 1.0, 2.5, 40.0, 1e6])
def test_one_and_two_degrees_of_freedom_have_closed_forms(t):
    """df = 1 is Cauchy's distribution; df = 2: P(|T| > t) = 1 − t / √(2 + t²), written without its cancellation."""
    assert two_sided(t, 1) == pytest.approx(2 * math.atan2(1, t) / math.pi, rel=1e-12)
    root = math.sqrt(2 + t * t)
    assert two_sided(t, 2) == pytest.approx(2 / (root * (root + t)), rel=1e-12)


@pytest.mark.parametrize(
    ("df", "t"),
    [(1, 12.7062), (2, 4.30265), (4, 2.77645), (11, 2.20099), (19, 2.09302), (30, 2.04227), (100, 1.98397)],
)
def test_the_quantiles_of_95_percent_are_those_of_printed_tables(df, t):
    assert quantile(0.95, df) == pytest.approx(t, rel=3e-6)


@pytest.mark.parametrize("df", [1, 4, 11, 99, 9999])
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_the_quantile_leaves_the_tail_that_was_asked_for(df, level):
    assert two_sided(quantile(level, df), df) == pytest.approx(1 - level, rel=1e-9)
    assert two_sided(-quantile(level, df), df) == two_sided(quantile(level, df), df)


def test_many_degrees_of_freedom_are_the_normal_distribution():
    assert two_sided(1.959964, 10**7) == pytest.approx(0.05, abs=1e-6)


def test_the_ends_are_certain():
    assert two_sided(0.0, 7) == 1.0 and two_sided(math.inf, 7) == 0.0 and two_sided(1e200, 7) == 0.0


def test_what_is_no_distribution_or_no_level_is_refused():
    with pytest.raises(ValueError, match="at least 1 degree of freedom, got 0"):
        two_sided(1.0, 0)
    with pytest.raises(ValueError, match="level must be between 0 and 1, got 95"):
        quantile(95, 4)


def test_scipy_agrees_where_it_is_installed():
    stats = pytest.importorskip("scipy.stats")
    for df in (1, 2, 3, 5, 11, 19, 100, 999):
        for t in (0.01, 0.5, 1.0, 2.0, 5.0, 20.0):
            assert two_sided(t, df) == pytest.approx(2 * stats.t.sf(t, df), rel=1e-11)
        assert quantile(0.95, df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-11)
