"""Who is near to the mean, and how users write."""

import numpy as np
import pytest

from fed.exploration import neighbours


def test_users_are_placed_by_their_distance_from_the_mean():
    vectors = np.zeros((9, 2))
    vectors[:, 0] = [0, 1, -1, 3, -3, 6, -6, 10, -10]
    distance = neighbours.distances(vectors)
    assert distance.tolist() == [0, 1, 1, 3, 3, 6, 6, 10, 10]
    assert neighbours.placed(distance, 2) == {"nearest": [0, 1], "midway": [3, 4], "farthest": [7, 8]}
    assert neighbours.placed(distance[:2], 5) == {"nearest": [0], "midway": [0], "farthest": [1]}


def test_a_cosine_is_with_the_others_alone():
    assert neighbours.cosines(np.array([[1.0, 0], [0, 1.0], [0, 1.0]])) == pytest.approx([0, 0.5**0.5, 0.5**0.5])


def test_measures_of_style_by_hand():
    seen = neighbours.style(["Oh NO! no...", "don't"])
    assert seen["words"] == 2 and seen["word_length"] == pytest.approx(11 / 4)
    assert seen["punctuation"] == pytest.approx(100 * 5 / 15) and seen["capitals"] == pytest.approx(100 * 3 / 15)
    assert seen["type_token"] == 3 / 4
    assert set(neighbours.style(["…"]).values()) == {0.0}


def test_the_type_token_ratio_does_not_fall_with_the_length_of_a_text():
    rng = np.random.default_rng(0)
    text = [f"w{n}" for n in rng.integers(0, 60, 4000)]
    short, long = (neighbours.style([" ".join(text[:count])])["type_token"] for count in (100, 4000))
    assert short == pytest.approx(long, abs=0.06)


def test_a_style_that_grows_with_the_distance_is_told_and_one_that_does_not_is_not():
    rng = np.random.default_rng(0)
    distance = np.arange(20.0)
    styles = [dict.fromkeys(neighbours.STYLES, float(rng.normal())) | {"words": d + rng.normal()} for d in distance]
    seen = neighbours.style_against(distance, styles)
    assert seen["words"]["rho"] > 0.9 and seen["words"]["p"] < 0.01
    assert seen["capitals"]["p"] > 0.05
