"""What answers score that know ever more of a user: the docstring's order, and what another user's habits cost."""

import pytest

from fed.lamp import metrics
from fed.lamp.synthetic import ceilings
from fed.lamp.synthetic import users as synthetic
from fed.lamp.tasks import get_task

TASK = get_task("LaMP_7")


def test_knowing_the_user_is_worth_much_and_another_user_costs_much():
    users = [synthetic.make_user(user_id) for user_id in synthetic.user_ids()["test"]]
    rouge = {
        name: scores["rougeL"]
        for name, scores in ceilings.ceilings(TASK, {user.user_id: user.queries for user in users}, seed=0).items()
    }
    assert list(rouge) == ["copying", "collective register", "own habits"]
    assert rouge["copying"] < rouge["collective register"] - 0.1 < rouge["own habits"] - 0.2
    assert 0.97 < rouge["own habits"] < 1  # a habit is kept to in 19 tweets of 20
    golds, swapped = [], []
    for user, other in zip(users, [*users[1:], users[0]], strict=True):
        habits = synthetic.habits_of(other.user_id)
        golds += [query.gold for query in user.queries]
        swapped += [synthetic.write_tweet(TASK.query_text(query), habits) for query in user.queries]
    assert metrics.scores(TASK, metrics.statistics(TASK, golds, swapped))["rougeL"] < rouge["collective register"]


def test_the_ceilings_are_of_the_queries_that_were_asked():
    user = synthetic.make_user("test-0002", seed=3)
    one = ceilings.ceilings(TASK, {"test-0002": user.queries[:1]}, seed=3)["own habits"]["rougeL"]
    all_of_them = ceilings.ceilings(TASK, {"test-0002": user.queries}, seed=3)["own habits"]["rougeL"]
    assert one == pytest.approx(1.0) or one < all_of_them


def test_the_module_prints_samples_and_ceilings(capsys):
    ceilings.main(users=2)
    printed = capsys.readouterr().out
    assert "test-0001: 32 tweets, 24 queries" in printed
    assert "collective register" in printed and "own habits" in printed


def test_a_runs_ceilings_are_those_of_the_queries_its_users_were_asked():
    plan = {"cohorts": "paper", "max_queries": 2, "held_out": 0, "seed": 0}
    asked = {f"test-000{n}": synthetic.make_user(f"test-000{n}").queries[:2] for n in (1, 0)}
    assert ceilings.of_run("synthetic", TASK, asked, **plan) == ceilings.ceilings(TASK, asked, seed=0)
    assert ceilings.of_run("synthetic", TASK, ["alice"], **plan) is None  # a device with a history of its own
    assert ceilings.of_run("/data/LaMP_7", TASK, asked, **plan) is None
    assert ceilings.of_run("synthetic", get_task("LaMP_4"), asked, **plan) is None
