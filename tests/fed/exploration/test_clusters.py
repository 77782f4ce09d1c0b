"""Groups of users: planted ones come back, and agreement is the published index."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from fed.exploration.clusters import (
    adjusted_rand_index,
    average_linkage,
    chance_of,
    distances_agree,
    nearest_agree,
)


def test_planted_groups_come_back():
    rng = np.random.default_rng(0)
    planted = np.repeat([0, 1, 2], 5)
    places = 10 * np.eye(3)[planted] + rng.standard_normal((15, 3))
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert adjusted_rand_index(average_linkage(distances, 3), planted.tolist()) == 1.0
    assert average_linkage(distances, 15) == list(range(15)) and set(average_linkage(distances, 1)) == {0}
    with pytest.raises(ValueError, match="15 users make 1 to 15 groups, got 16"):
        average_linkage(distances, 16)


def test_the_index_is_scikit_learn_s_and_zero_on_average_for_groups_at_random():
    rng = np.random.default_rng(1)
    pairs = [(rng.integers(0, 4, 20).tolist(), rng.integers(0, 3, 20).tolist()) for _ in range(50)]
    assert [adjusted_rand_index(a, b) for a, b in pairs] == pytest.approx([adjusted_rand_score(a, b) for a, b in pairs])
    assert abs(np.mean([adjusted_rand_index(a, b) for a, b in pairs])) < 0.03
    assert adjusted_rand_index(["x", "x", "y"], [1, 1, 0]) == 1.0


def test_a_planted_agreement_is_no_chance_and_unrelated_groups_are():
    planted = [n % 4 for n in range(24)]
    assert chance_of(1.0, planted, planted, draws=199) == 1 / 200
    rng = np.random.default_rng(0)
    pairs = [(planted, rng.permutation(planted).tolist()) for _ in range(30)]
    assert sum(chance_of(adjusted_rand_index(a, b), a, b, draws=99) <= 0.05 for a, b in pairs) <= 4


def test_a_nearest_other_of_the_same_kind_is_counted_beside_chance():
    places = np.array([0, 0.1, 5, 5.1, 9])
    distances = abs(places[:, None] - places[None])
    assert nearest_agree(distances, ["a", "a", "b", "b", "c"]) == (1.0, 0.25)
    assert nearest_agree(distances, ["a", "b", "a", "b", "c"]) == (0.0, 0.25)
    assert nearest_agree(distances, list("abcde")) == (0.0, 0.0)


def test_distances_of_the_same_users_agree_and_those_of_shuffled_users_do_not():
    rng = np.random.default_rng(0)
    places = rng.standard_normal((12, 3))
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    rho, p = distances_agree(distances, distances**2, draws=199)
    assert rho == pytest.approx(1) and p == 1 / 200
    order = np.roll(np.arange(12), 5)
    assert distances_agree(distances, distances[np.ix_(order, order)], draws=199)[1] > 0.05
