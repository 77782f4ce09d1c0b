"""The mean shift: found where it is planted, in its direction, and not more often than promised where it is not."""

import numpy as np
import pytest

from fed.exploration.collective_shift import agreement, collective_shift, cosine, on_principal_axes

USERS, DIMENSIONS = 30, 24


def users_around(shift, seed, users=USERS):
    return shift + np.random.default_rng(seed).standard_normal((users, DIMENSIONS))


def test_where_no_shift_is_planted_both_tests_alarm_at_their_nominal_rate():
    nothing = np.zeros(DIMENSIONS)
    found = [collective_shift(users_around(nothing, seed), seed=seed) for seed in range(100)]
    # More than 10 of 100 at 5 % come in 1.1 % of such tests.
    assert sum(shift.p_values.min() < 0.05 for shift in found) <= 10
    assert sum(shift.p_whole < 0.05 for shift in found) <= 10
    assert abs(np.mean([shift.share for shift in found])) < 0.01


def test_a_planted_shift_is_found_in_its_direction_and_in_its_coordinates():
    shift = np.zeros(DIMENSIONS)
    shift[[2, 7, 11]] = 2.0, -3.0, 1.5
    seen = collective_shift(users_around(shift, 0))
    assert seen.p_whole < 0.001
    assert set(np.flatnonzero(seen.p_values < 0.05)) == {2, 7, 11}
    assert cosine(seen.mean, shift) > 0.95
    assert seen.share == pytest.approx((shift**2).sum() / ((shift**2).sum() + DIMENSIONS), abs=0.08)


def test_a_shift_too_thin_for_any_coordinate_is_seen_as_a_whole():
    found = [collective_shift(0.2 + np.random.default_rng(seed).standard_normal((USERS, 100))) for seed in range(20)]
    assert sum(shift.p_whole < 0.05 for shift in found) >= 18
    assert sum(shift.p_values.min() < 0.05 for shift in found) <= 10


def test_what_any_context_does_cancels_against_the_control():
    any_context = np.full(DIMENSIONS, 2.0)
    own, other = users_around(any_context, 1), users_around(any_context, 2)
    assert collective_shift(own).p_whole < 0.001
    assert collective_shift(own - other).p_whole > 0.05


def test_users_stand_on_the_principal_axes_with_no_shift_at_zero():
    rng = np.random.default_rng(0)
    vectors = np.zeros((USERS, DIMENSIONS))
    vectors[:, 0], vectors[:, 1] = 5 + 3 * rng.standard_normal(USERS), 2 + rng.standard_normal(USERS)
    places, mean, shares = on_principal_axes(vectors)
    assert abs(mean) == pytest.approx(abs(vectors.mean(0)[:2]), abs=1.5)
    assert shares.sum() == pytest.approx(1) and shares[0] > 0.7
    assert np.linalg.norm(places, axis=1) == pytest.approx(np.linalg.norm(vectors, axis=1))


def test_what_is_personal_is_told_from_what_all_share_and_from_what_others_have():
    rng = np.random.default_rng(0)
    personal, shared = rng.standard_normal((USERS, DIMENSIONS)), np.full(DIMENSIONS, 9.0)
    a, b = (shared + personal + rng.standard_normal((USERS, DIMENSIONS)) for _ in range(2))
    seen, p = agreement(a, b)
    assert seen == pytest.approx(0.5, abs=0.1) and p == 1 / 1000
    elsewhere, chance = agreement(a, np.roll(b, 1, axis=0))
    assert abs(elsewhere) < 0.15 and chance > 0.05


def test_coordinates_in_which_all_users_agree_are_no_accident_of_rounding():
    vectors = users_around(np.zeros(DIMENSIONS), 0)
    vectors[:, 0], vectors[:, 1] = 0.0, 1.0
    seen = collective_shift(vectors)
    assert (seen.over_error[0], seen.p_values[0]) == (0.0, 1.0)
    assert seen.over_error[1] == np.inf and seen.p_values[1] == 0.0
    with pytest.raises(ValueError, match="at least 2"):
        collective_shift(vectors[:1])
