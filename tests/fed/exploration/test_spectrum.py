"""Singular values of users' shifts: a planted rank is recovered, and where none is planted none is found."""

import numpy as np
import pytest

from fed.exploration import spectrum
from fed.exploration.subspaces import principal_angles

USERS, DIMENSIONS = 30, 40


def noise(seed, users=USERS, dimensions=DIMENSIONS):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((users, dimensions)) * rng.uniform(0.5, 2.0, (users, 1))


def planted(seed, rank, *, strength=8.0, mean=0.0):
    """(vectors, axes): every user somewhere in a subspace of `rank` axes, with unit noise around it."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((DIMENSIONS, rank)))[0].T
    places = mean + strength * rng.standard_normal((USERS, rank))
    return places @ axes + rng.standard_normal((USERS, DIMENSIONS)), axes


@pytest.mark.parametrize("centre", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_planted_rank_and_its_directions_are_recovered(rank, centre):
    counts = []
    for seed in range(8):
        vectors, axes = planted(seed, rank)
        counts.append(spectrum.above_chance(vectors, centre=centre, draws=59, seed=1000 + seed).above)
        leading = spectrum.directions(spectrum.centred(vectors) if centre else vectors, rank)
        assert principal_angles(leading, axes).max() < 20  # random ones: above 60 degrees
    # The first direction after the planted ones passes in 5 % of data sets: more than 2 of 8 in 0.6 % of such tests.
    assert min(counts) == rank and counts.count(rank) >= 6


@pytest.mark.parametrize("centre", [False, True])
def test_where_no_direction_is_planted_alarms_come_at_their_nominal_rate(centre):
    alarms = sum(
        spectrum.above_chance(noise(seed), centre=centre, draws=59, seed=1000 + seed).above > 0 for seed in range(100)
    )
    assert alarms <= 10  # of 100 at 5 %: more than 10 in 1.1 % of such tests


def test_a_shift_that_all_users_share_is_one_direction_that_centring_takes_away():
    counts = []
    for seed in range(8):
        vectors = 6 * np.eye(DIMENSIONS)[0] + np.random.default_rng(seed).standard_normal((USERS, DIMENSIONS))
        counts.append(
            [
                spectrum.above_chance(vectors, centre=centre, draws=59, seed=1000 + seed).above
                for centre in (False, True)
            ]
        )
    assert min(counts) == [1, 0] and counts.count([1, 0]) >= 6


def test_dimensions_count_the_singular_values_that_hold_a_share_of_the_variance():
    vectors = np.diag([3.0, 2.0, 1.0, 1.0]) @ np.linalg.qr(noise(0, 8, 4))[0].T  # energies 9, 4, 1, 1 of 15
    energy = spectrum.energies(vectors)
    assert energy == pytest.approx([9, 4, 1, 1])
    assert [spectrum.dimensions_for(energy, share) for share in (0.6, 0.61, 0.8, 0.9, 0.95, 1.0)] == [1, 2, 2, 3, 4, 4]
    assert spectrum.dimensions_for(np.zeros(3), 0.9) == 0
    assert energy == pytest.approx(np.linalg.svd(vectors, compute_uv=False) ** 2)
    assert spectrum.energies(vectors.T) == pytest.approx(energy)


def test_fewer_users_than_dimensions_bound_the_rank():
    few = noise(1, users=6)
    assert len(spectrum.energies(few)) == 6 and spectrum.dimensions_for(spectrum.energies(few), 0.999) == 6
    assert spectrum.dimensions_for(spectrum.energies(spectrum.centred(few)), 0.999) == 5


def test_the_bootstrap_holds_the_rank_that_was_planted_and_repeats_itself():
    vectors, _ = planted(0, 2, strength=20.0)
    held = spectrum.bootstrap(vectors, centre=True, shares=(0.9,), draws=50)
    assert held == spectrum.bootstrap(vectors, centre=True, shares=(0.9,), draws=50)
    low, high = held[0.9]
    assert low <= 2 <= high <= 3


def test_random_directions_have_the_lengths_that_were_given_and_no_common_direction():
    lengths = np.linspace(1, 5, 400)
    drawn = spectrum.random_directions(lengths, DIMENSIONS, np.random.default_rng(0))
    assert np.linalg.norm(drawn, axis=1) == pytest.approx(lengths)
    assert np.linalg.norm(drawn.mean(0)) < 0.4


def test_more_directions_than_there_are_cannot_be_had():
    with pytest.raises(ValueError, match="there are 6 directions, got a wish for 7"):
        spectrum.directions(noise(0, users=6), 7)
