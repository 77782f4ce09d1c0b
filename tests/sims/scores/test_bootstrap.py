"""The paired bootstrap: pooled scores, the same draws for all, and when a difference is called real."""

import numpy as np
import pytest

from fed.lamp import metrics
from fed.lamp.tasks import get_task

NEWS, STARS = get_task("LaMP_2N"), get_task("LaMP_3")


@pytest.fixture
def bootstrap(script):
    return script("scores.bootstrap")


def sums(task, users):
    """user -> (golds, predictions) to user -> sums."""
    return {
        name: {"nll": 1.0 + number, "tokens": 2.0, **metrics.statistics(task, golds, predictions)}
        for number, (name, (golds, predictions)) in enumerate(users.items())
    }


def test_the_first_score_is_that_of_all_answers_in_one_place(bootstrap):
    users = {"a": (["crime", "women"], ["crime", "crime"]), "b": (["travel"], ["travel"])}
    found, count = bootstrap.draws_of(NEWS, {"one": [sums(NEWS, users)]}, draws=5)
    golds, predictions = ["crime", "women", "travel"], ["crime", "crime", "travel"]
    whole = metrics.scores(NEWS, metrics.statistics(NEWS, golds, predictions))
    assert count == 2
    assert {m: found["one"][m][0] for m in whole} == pytest.approx(whole)
    assert found["one"]["loss_per_token"][0] == pytest.approx((1 + 2) / 4)
    assert all(len(values) == 6 for values in found["one"].values())


def test_a_draw_pools_the_drawn_users_and_not_their_scores(bootstrap):
    """With two users every draw is one of three: a twice, b twice, both; RMSE is that of the pooled answers."""
    users = {"a": (["1"], ["5"]), "b": (["1"] * 3, ["1"] * 3)}
    found, _ = bootstrap.draws_of(STARS, {"one": [sums(STARS, users)]}, draws=200)
    assert set(np.round(found["one"]["rmse"][1:], 9)) == {4.0, 0.0, 2.0}  # sqrt(16 / 4) = 2 for both


def test_seeds_are_averaged_and_the_same_users_are_drawn_for_every_method(bootstrap):
    one, other = (
        sums(STARS, {"a": (["3"], ["4"]), "b": (["3"], ["5"])}),
        sums(STARS, {"a": (["3"], ["5"]), "b": (["3"], ["3"])}),
    )
    found, _ = bootstrap.draws_of(STARS, {"x": [one, other], "y": [one], "z": [other]}, draws=50, seed=3)
    np.testing.assert_allclose(found["x"]["mae"], (found["y"]["mae"] + found["z"]["mae"]) / 2)
    again, _ = bootstrap.draws_of(STARS, {"y": [one]}, draws=50, seed=3)
    np.testing.assert_array_equal(again["y"]["mae"], found["y"]["mae"])
    another, _ = bootstrap.draws_of(STARS, {"y": [one]}, draws=50, seed=4)
    assert (another["y"]["mae"] != found["y"]["mae"]).any()


def test_only_users_that_all_have_are_compared_and_none_is_an_error(bootstrap):
    both, less = sums(STARS, {"a": (["3"], ["3"]), "b": (["3"], ["5"])}), sums(STARS, {"a": (["3"], ["4"])})
    found, count = bootstrap.draws_of(STARS, {"x": [both], "y": [less]}, draws=3)
    assert count == 1 and (found["x"]["mae"] == 0).all() and (found["y"]["mae"] == 1).all()
    with pytest.raises(ValueError, match="must have a tested user in common"):
        bootstrap.draws_of(STARS, {"x": [less], "y": [sums(STARS, {"c": (["3"], ["4"])})]}, draws=3)


def test_a_difference_that_all_users_show_is_real_and_one_that_half_show_is_not(bootstrap):
    names = [f"u{i}" for i in range(20)]
    right = sums(STARS, {name: (["3"], ["3"]) for name in names})
    wrong = sums(STARS, {name: (["3"], ["4"]) for name in names})
    mixed = sums(STARS, {name: (["3"], ["4" if i % 2 else "3"]) for i, name in enumerate(names)})
    other = sums(STARS, {name: (["3"], ["3" if i % 2 else "4"]) for i, name in enumerate(names)})
    found, count = bootstrap.draws_of(STARS, {"r": [right], "w": [wrong], "m": [mixed], "o": [other]})
    sure = bootstrap.difference("mae", found["r"]["mae"], found["w"]["mae"], count)
    assert (sure.value, sure.low, sure.high, sure.real, sure.users) == (-1.0, -1.0, -1.0, True, 20)
    assert sure.p == pytest.approx(1 / (bootstrap.DRAWS + 1))
    unsure = bootstrap.difference("mae", found["m"]["mae"], found["o"]["mae"], count)
    assert unsure.value == 0.0 and unsure.low < 0 < unsure.high and not unsure.real and unsure.p > 0.5
    same = bootstrap.difference("mae", found["r"]["mae"], found["r"]["mae"], count)
    assert not same.real and same.p == 1.0
