"""Who federates, who personalizes, on which rows; and that no test query is ever trained on."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.lamp import cohorts
from fed.lamp.records import Corpus, open_corpus
from fed.lamp.tasks import get_task
from fed.lamp.user import Query, User
from fed.settings.settings import Settings

LAMP7 = Path(__file__).resolve().parents[3] / "sims" / "lamp7" / "pyproject.toml"
TWEETS, HEADLINES = get_task("LaMP_7"), get_task("LaMP_4")


@pytest.fixture(scope="module")
def settings():
    config = tomllib.loads(LAMP7.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    return Settings.parse(config | {"max-items": 0, "max-queries": 0})


def headline_user(user_id, items, queries):
    profile = tuple({"id": str(i), "text": f"text {i}", "title": f"title {i}"} for i in range(items))
    asked = tuple(Query(f"q{i}", f"{HEADLINES.instruction}article {i}", f"headline {i}") for i in range(queries))
    return User(user_id, profile, asked)


def tweet_user(user_id, items, queries):
    profile = tuple({"id": str(i), "text": f"tweet {i}"} for i in range(items))
    asked = tuple(Query(f"q{i}", f"{TWEETS.instruction}plain {i}", f"own {i}") for i in range(queries))
    return User(user_id, profile, asked)


def corpus_of(task, others, test):
    users = {user.user_id: user for user in (*others, *test)}
    ids = {"others": tuple(u.user_id for u in others), "test": tuple(u.user_id for u in test)}
    sizes = {one: (len(user.profile), len(user.queries)) for one, user in users.items()}
    return Corpus(task, "memory", ids, sizes.__getitem__, users.__getitem__)


def asked_of(task, user, settings):
    return tuple(query for query, _ in cohorts.test_pairs(task, user, settings))


@pytest.fixture(scope="module")
def corpus():
    others = [headline_user(f"o{i}", 5, 3) for i in (3, 1, 2)]
    return corpus_of(HEADLINES, others, [headline_user(f"t{i}", 4, 2) for i in (2, 1)])


def test_in_the_papers_cohorts_others_federate_and_test_users_personalize(corpus, settings):
    found = cohorts.roster(corpus, settings)
    assert found.stage1 == ("o1", "o2", "o3") and found.stage2 == ("t1", "t2")
    assert found.everyone == ("o1", "o2", "o3", "t1", "t2")


def test_in_the_cohort_all_every_user_does_both(corpus, settings):
    found = cohorts.roster(corpus, replace(settings, cohorts="all"))
    assert found.stage1 == found.stage2 == found.everyone == ("o1", "o2", "o3", "t1", "t2")


def test_limits_keep_the_first_users_by_id(corpus, settings):
    found = cohorts.roster(corpus, replace(settings, stage1_users=2, stage2_users=1))
    assert found.stage1 == ("o1", "o2") and found.stage2 == ("t1",)
    found = cohorts.roster(corpus, replace(settings, stage1_users=99, stage2_users=4, cohorts="all"))
    assert found.stage1 == ("o1", "o2", "o3", "t1", "t2") and found.stage2 == ("o1", "o2", "o3", "t1")
    assert found.everyone == ("o1", "o2", "o3", "t1", "t2")


@pytest.mark.parametrize(("others", "test", "stage"), [(0, 2, "1"), (2, 0, "2")])
def test_an_empty_cohort_is_refused_by_its_stage(settings, others, test, stage):
    empty = corpus_of(
        HEADLINES,
        [headline_user(f"o{i}", 1, 1) for i in range(others)],
        [headline_user(f"t{i}", 1, 1) for i in range(test)],
    )
    with pytest.raises(ValueError, match=f"memory: stage {stage} needs at least one user"):
        cohorts.roster(empty, settings)
    assert len(cohorts.roster(empty, replace(settings, cohorts="all")).everyone) == 2


@given(st.integers(0, 60), st.integers(1, 70))
def test_blocks_cover_every_user_once_in_order_and_evenly(count, parts):
    users = tuple(f"{i:03d}" for i in range(count))
    blocks = [cohorts.block(users, part, parts) for part in range(parts)]
    assert tuple(user for block in blocks for user in block) == users
    sizes = [len(block) for block in blocks]
    assert max(sizes) - min(sizes) <= 1


def test_the_papers_stage_1_learns_from_queries_and_stage_2_from_the_history(settings):
    user = headline_user("u", 3, 2)
    assert cohorts.stage1_pairs(HEADLINES, user, settings) == [
        ("Generate a headline for the following article: article 0\nheadline:", " headline 0"),
        ("Generate a headline for the following article: article 1\nheadline:", " headline 1"),
    ]
    assert cohorts.stage2_pairs(HEADLINES, user, settings)[0] == (
        "Generate a headline for the following article: text 0\nheadline:",
        " title 0",
    )
    assert [pair.completion for pair in cohorts.stage2_pairs(HEADLINES, user, settings)] == [
        " title 0", " title 1", " title 2",
    ]  # fmt: skip
    assert asked_of(HEADLINES, user, settings) == user.queries


def test_in_the_cohort_all_stage_1_learns_from_a_history_that_has_inputs(settings):
    everyone, user = replace(settings, cohorts="all"), headline_user("u", 3, 2)
    assert [pair.completion for pair in cohorts.stage1_pairs(HEADLINES, user, everyone)] == [
        " title 0", " title 1", " title 2",
    ]  # fmt: skip
    assert asked_of(HEADLINES, user, everyone) == user.queries


def test_bare_tweets_let_stage_1_learn_from_the_earlier_half_of_the_queries_and_test_the_later(settings):
    everyone, user = replace(settings, cohorts="all"), tweet_user("u", 3, 5)
    learned = cohorts.stage1_pairs(TWEETS, user, everyone)
    assert [pair.completion for pair in learned] == [" own 0", " own 1"]
    assert [query.id for query in asked_of(TWEETS, user, everyone)] == ["q2", "q3", "q4"]
    assert cohorts.stage2_pairs(TWEETS, user, everyone)[0] == ("tweet:", " tweet 0")
    assert [query.id for query in asked_of(TWEETS, user, settings)] == [
        "q0",
        "q1",
        "q2",
        "q3",
        "q4",
    ]


@given(st.integers(0, 12), st.integers(0, 5), st.integers(0, 5))
def test_rows_and_test_queries_are_disjoint_in_the_cohort_all(queries, max_items, max_queries):
    user = tweet_user("u", 3, queries)
    config = tomllib.loads(LAMP7.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    limits = {"cohorts": "all", "max-items": max_items, "max-queries": max_queries}
    everyone = Settings.parse(config | limits)
    asked = asked_of(TWEETS, user, everyone)
    learned = cohorts.stage1_pairs(TWEETS, user, everyone) + cohorts.stage2_pairs(TWEETS, user, everyone)
    assert not {TWEETS.query_pair(query) for query in asked} & set(learned)
    assert not {query.gold for query in asked} & {pair.completion.strip() for pair in learned}
    assert len(asked) == min(queries - queries // 2, max_queries or queries)


@pytest.mark.parametrize("cohort", ["paper", "all"])
def test_no_synthetic_user_is_tested_on_what_anybody_is_trained_on(settings, cohort):
    chosen, synthetic = replace(settings, cohorts=cohort), open_corpus("synthetic:4", TWEETS, seed=0)
    found = cohorts.roster(synthetic, chosen)
    assert len(found.stage1) == len(found.stage2) == (4 if cohort == "paper" else 8)
    trained = [p for one in found.stage1 for p in cohorts.stage1_pairs(TWEETS, synthetic.user(one), chosen)]
    trained += [p for one in found.stage2 for p in cohorts.stage2_pairs(TWEETS, synthetic.user(one), chosen)]
    asked = [pair for one in found.stage2 for _, pair in cohorts.test_pairs(TWEETS, synthetic.user(one), chosen)]
    assert len(trained) == (4 * 12 + 4 * 28 if cohort == "paper" else 8 * 6 + 8 * 28)
    assert len(asked) == 48 and not set(trained) & set(asked)


@pytest.mark.parametrize(("limit", "expected"), [(0, [0, 1, 2, 3]), (1, [3]), (3, [1, 2, 3]), (9, [0, 1, 2, 3])])
def test_max_items_keeps_the_latest(settings, limit, expected):
    user, limited = tweet_user("u", 4, 4), replace(settings, max_items=limit)
    assert [pair.completion for pair in cohorts.stage2_pairs(TWEETS, user, limited)] == [
        f" tweet {i}" for i in expected
    ]
    assert [pair.completion for pair in cohorts.stage1_pairs(TWEETS, user, limited)] == [f" own {i}" for i in expected]


@pytest.mark.parametrize(("limit", "expected"), [(0, 4), (1, 1), (9, 4)])
def test_max_queries_keeps_the_first(settings, limit, expected):
    user = tweet_user("u", 4, 4)
    kept = asked_of(TWEETS, user, replace(settings, max_queries=limit))
    assert kept == user.queries[:expected]


@pytest.mark.parametrize("cohort", ["paper", "all"])
def test_held_out_items_are_tested_as_queries_and_trained_on_by_no_stage(settings, cohort):
    user, searched = headline_user("u", 5, 3), replace(settings, cohorts=cohort, held_out=2)
    pairs = cohorts.test_pairs(HEADLINES, user, searched)
    assert [(query.id, query.gold) for query, _ in pairs] == [("3", "title 3"), ("4", "title 4")]
    assert all(pair == HEADLINES.query_pair(query) for query, pair in pairs)
    trained = cohorts.stage2_pairs(HEADLINES, user, searched)
    assert [pair.completion for pair in trained] == [" title 0", " title 1", " title 2"]
    assert not set(cohorts.stage1_pairs(HEADLINES, user, searched)) & {pair for _, pair in pairs}
    latest = cohorts.stage2_pairs(HEADLINES, user, replace(searched, max_items=1))
    assert [pair.completion for pair in latest] == [" title 2"]


def test_held_out_tweets_are_asked_for_as_they_are_trained_on_and_one_item_always_stays(settings):
    searched = replace(settings, held_out=9)
    ((query, pair), _) = cohorts.test_pairs(TWEETS, tweet_user("u", 3, 2), searched)
    assert pair == ("tweet:", " tweet 1") and query.gold == "tweet 1"
    assert cohorts.stage2_pairs(TWEETS, tweet_user("u", 3, 2), searched) == [("tweet:", " tweet 0")]
    with pytest.raises(ValueError, match="held-out needs histories of two items at least, and that of 'u' has one"):
        cohorts.test_pairs(TWEETS, tweet_user("u", 1, 2), searched)
