"""Who federates, who personalizes, on which rows; and that no test query is ever trained on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.lamp import cohorts
from fed.lamp.records import Corpus, open_corpus
from fed.lamp.tasks import Pair, get_task
from fed.lamp.user import Query, User

TWEETS, HEADLINES = get_task("LaMP_7"), get_task("LaMP_4")


def headline_user(user_id, items, queries):
    profile = tuple({"id": str(i), "text": f"text {i}", "title": f"title {i}"} for i in range(items))
    asked = tuple(Query(f"q{i}", f"{HEADLINES.instruction}article {i}", f"headline {i}") for i in range(queries))
    return User(user_id, profile, asked)


def tweet_user(user_id, items, queries):
    profile = tuple({"id": str(i), "text": f"tweet {i}"} for i in range(items))
    asked = tuple(Query(f"q{i}", f"{TWEETS.instruction}plain {i}", f"own {i}") for i in range(queries))
    return User(user_id, profile, asked)


def corpus_of(task, others, test, **layout):
    users = {user.user_id: user for user in (*others, *test)}
    ids = {"others": tuple(u.user_id for u in others), "test": tuple(u.user_id for u in test)}
    sizes = {one: (len(user.profile), len(user.queries)) for one, user in users.items()}
    return Corpus(task, "memory", ids, sizes.__getitem__, users.__getitem__, **layout)


def asked_of(task, user, **plan):
    return tuple(query for query, _ in cohorts.test_pairs(task, user, **plan))


@pytest.fixture(scope="module")
def corpus():
    others = [headline_user(f"o{i}", 5, 3) for i in (3, 1, 2)]
    return corpus_of(HEADLINES, others, [headline_user(f"t{i}", 4, 2) for i in (2, 1)])


def test_in_the_papers_cohorts_others_federate_and_test_users_personalize(corpus):
    found = cohorts.roster(corpus, cohorts="paper")
    assert found.stage1 == ("o1", "o2", "o3") and found.stage2 == ("t1", "t2")
    assert found.everyone == ("o1", "o2", "o3", "t1", "t2")


def test_in_the_cohort_all_every_user_does_both(corpus):
    found = cohorts.roster(corpus, cohorts="all")
    assert found.stage1 == found.stage2 == found.everyone == ("o1", "o2", "o3", "t1", "t2")


def test_limits_keep_the_first_users_by_id(corpus):
    found = cohorts.roster(corpus, cohorts="paper", stage1_users=2, stage2_users=1)
    assert found.stage1 == ("o1", "o2") and found.stage2 == ("t1",)
    found = cohorts.roster(corpus, cohorts="all", stage1_users=99, stage2_users=4)
    assert found.stage1 == ("o1", "o2", "o3", "t1", "t2") and found.stage2 == ("o1", "o2", "o3", "t1")
    assert found.everyone == ("o1", "o2", "o3", "t1", "t2")


def test_in_lamps_own_layout_a_limit_keeps_the_tested_users_with_the_longest_histories():
    others = [headline_user(f"o{i}", 9 - i, 1) for i in range(3)]
    tested = [headline_user(f"t{i}", items, 1) for i, items in enumerate((3, 7, 2, 7, 5))]
    by_id, by_history = (corpus_of(HEADLINES, others, tested, lamp_layout=layout) for layout in (False, True))
    assert cohorts.roster(by_id, cohorts="paper", stage2_users=3).stage2 == ("t0", "t1", "t2")
    found = cohorts.roster(by_history, cohorts="paper", stage1_users=2, stage2_users=3)
    assert found.stage2 == ("t1", "t3", "t4") and found.stage1 == ("o0", "o1")
    assert cohorts.roster(by_history, cohorts="paper", stage2_users=1).stage2 == ("t1",)  # of equals, the first by id
    assert len(cohorts.roster(by_history, cohorts="paper").stage2) == 5
    assert cohorts.roster(by_history, cohorts="all", stage2_users=3).stage2 == ("o0", "o1", "o2")


@pytest.mark.parametrize(("others", "test", "stage"), [(0, 2, "1"), (2, 0, "2")])
def test_an_empty_cohort_is_refused_by_its_stage(others, test, stage):
    empty = corpus_of(
        HEADLINES,
        [headline_user(f"o{i}", 1, 1) for i in range(others)],
        [headline_user(f"t{i}", 1, 1) for i in range(test)],
    )
    with pytest.raises(ValueError, match=f"memory: stage {stage} needs at least one user"):
        cohorts.roster(empty, cohorts="paper")
    assert len(cohorts.roster(empty, cohorts="all").everyone) == 2


@given(st.integers(0, 60), st.integers(1, 70))
def test_blocks_cover_every_user_once_in_order_and_evenly(count, parts):
    users = tuple(f"{i:03d}" for i in range(count))
    blocks = [cohorts.block(users, part, parts) for part in range(parts)]
    assert tuple(user for block in blocks for user in block) == users
    sizes = [len(block) for block in blocks]
    assert max(sizes) - min(sizes) <= 1


def test_the_papers_stage_1_learns_from_queries_and_stage_2_from_the_history():
    user = headline_user("u", 3, 2)
    assert cohorts.stage1_pairs(HEADLINES, user, cohorts="paper") == [
        ("Generate a headline for the following article: article 0\nheadline:", " headline 0"),
        ("Generate a headline for the following article: article 1\nheadline:", " headline 1"),
    ]
    assert cohorts.stage2_pairs(HEADLINES, user)[0] == (
        "Generate a headline for the following article: text 0\nheadline:",
        " title 0",
    )
    assert [pair.completion for pair in cohorts.stage2_pairs(HEADLINES, user)] == [
        " title 0", " title 1", " title 2",
    ]  # fmt: skip
    assert asked_of(HEADLINES, user, cohorts="paper") == user.queries


def test_in_the_cohort_all_stage_1_learns_from_a_history_that_has_inputs():
    user = headline_user("u", 3, 2)
    assert [pair.completion for pair in cohorts.stage1_pairs(HEADLINES, user, cohorts="all")] == [
        " title 0", " title 1", " title 2",
    ]  # fmt: skip
    assert asked_of(HEADLINES, user, cohorts="all") == user.queries


def test_bare_tweets_let_stage_1_learn_from_the_earlier_half_of_the_queries_and_test_the_later():
    user = tweet_user("u", 3, 5)
    learned = cohorts.stage1_pairs(TWEETS, user, cohorts="all")
    assert [pair.completion for pair in learned] == [" own 0", " own 1"]
    assert [query.id for query in asked_of(TWEETS, user, cohorts="all")] == ["q2", "q3", "q4"]
    assert cohorts.stage2_pairs(TWEETS, user)[0] == ("tweet:", " tweet 0")
    assert [query.id for query in asked_of(TWEETS, user, cohorts="paper")] == [
        "q0",
        "q1",
        "q2",
        "q3",
        "q4",
    ]


@given(st.integers(0, 12), st.integers(0, 5), st.integers(0, 5))
def test_rows_and_test_queries_are_disjoint_in_the_cohort_all(queries, max_items, max_queries):
    user = tweet_user("u", 3, queries)
    asked = asked_of(TWEETS, user, cohorts="all", max_queries=max_queries)
    learned = cohorts.stage1_pairs(TWEETS, user, cohorts="all", max_items=max_items)
    learned += cohorts.stage2_pairs(TWEETS, user, max_items=max_items)
    assert not {TWEETS.query_pair(query) for query in asked} & set(learned)
    assert not {query.gold for query in asked} & {pair.completion.strip() for pair in learned}
    assert len(asked) == min(queries - queries // 2, max_queries or queries)


@pytest.mark.parametrize("cohort", ["paper", "all"])
def test_no_synthetic_user_is_tested_on_what_anybody_is_trained_on(cohort):
    synthetic = open_corpus("synthetic:4", TWEETS, seed=0)
    found = cohorts.roster(synthetic, cohorts=cohort)
    assert len(found.stage1) == len(found.stage2) == (4 if cohort == "paper" else 8)
    stage1, stage2 = ([synthetic.user(one) for one in stage] for stage in (found.stage1, found.stage2))
    trained = [pair for user in stage1 for pair in cohorts.stage1_pairs(TWEETS, user, cohorts=cohort)]
    trained += [pair for user in stage2 for pair in cohorts.stage2_pairs(TWEETS, user)]
    asked = [pair for user in stage2 for _, pair in cohorts.test_pairs(TWEETS, user, cohorts=cohort)]
    assert len(trained) == (4 * 24 + 4 * 32 if cohort == "paper" else 8 * 32 + 8 * 32)
    assert len(asked) == 24 * len(stage2) and not set(trained) & set(asked)


def test_with_all_doing_both_tweets_that_bring_inputs_leave_all_queries_to_the_test():
    profile = tuple({"id": str(i), "input": f"plain {i}", "text": f"tweet {i}"} for i in range(4))
    user = User("u", profile, tweet_user("u", 0, 3).queries)
    assert cohorts.stage1_pairs(TWEETS, user, cohorts="all") == cohorts.stage2_pairs(TWEETS, user)
    assert asked_of(TWEETS, user, cohorts="all") == user.queries
    bare = tweet_user("u", 4, 3)
    assert (
        len(cohorts.stage1_pairs(TWEETS, bare, cohorts="all")) == 1 and len(asked_of(TWEETS, bare, cohorts="all")) == 2
    )


@pytest.mark.parametrize(("limit", "expected"), [(0, [0, 1, 2, 3]), (1, [3]), (3, [1, 2, 3]), (9, [0, 1, 2, 3])])
def test_max_items_keeps_the_latest(limit, expected):
    user = tweet_user("u", 4, 4)
    private = cohorts.stage2_pairs(TWEETS, user, max_items=limit)
    assert [pair.completion for pair in private] == [f" tweet {i}" for i in expected]
    collective = cohorts.stage1_pairs(TWEETS, user, cohorts="paper", max_items=limit)
    assert [pair.completion for pair in collective] == [f" own {i}" for i in expected]


@pytest.mark.parametrize(("limit", "expected"), [(0, 4), (1, 1), (9, 4)])
def test_max_queries_keeps_the_first(limit, expected):
    user = tweet_user("u", 4, 4)
    assert asked_of(TWEETS, user, cohorts="paper", max_queries=limit) == user.queries[:expected]


@pytest.mark.parametrize("cohort", ["paper", "all"])
def test_held_out_items_are_tested_as_queries_and_trained_on_by_no_stage(cohort):
    user = headline_user("u", 5, 3)
    pairs = cohorts.test_pairs(HEADLINES, user, cohorts=cohort, held_out=2)
    assert [(query.id, query.gold) for query, _ in pairs] == [("3", "title 3"), ("4", "title 4")]
    assert all(pair == HEADLINES.query_pair(query) for query, pair in pairs)
    trained = cohorts.stage2_pairs(HEADLINES, user, held_out=2)
    assert [pair.completion for pair in trained] == [" title 0", " title 1", " title 2"]
    collective = cohorts.stage1_pairs(HEADLINES, user, cohorts=cohort, held_out=2)
    assert not set(collective) & {pair for _, pair in pairs}
    latest = cohorts.stage2_pairs(HEADLINES, user, held_out=2, max_items=1)
    assert [pair.completion for pair in latest] == [" title 2"]


def test_held_out_tweets_are_asked_for_as_they_are_trained_on_and_one_item_always_stays():
    ((query, pair), _) = cohorts.test_pairs(TWEETS, tweet_user("u", 3, 2), cohorts="paper", held_out=9)
    assert pair == ("tweet:", " tweet 1") and query.gold == "tweet 1"
    assert cohorts.stage2_pairs(TWEETS, tweet_user("u", 3, 2), held_out=9) == [("tweet:", " tweet 0")]
    with pytest.raises(ValueError, match="held-out needs histories of two items at least, and that of 'u' has one"):
        cohorts.test_pairs(TWEETS, tweet_user("u", 1, 2), cohorts="paper", held_out=9)


class Spoken:
    """A wording that is neither a task nor `Prompts`."""

    def query_pair(self, query):
        return Pair("asked", query.gold)

    def history_pair(self, item):
        return Pair("told", item["title"])


def test_rows_are_put_in_the_words_that_are_handed_in():
    user = headline_user("u", 2, 1)
    assert cohorts.stage1_pairs(HEADLINES, user, cohorts="paper", wording=Spoken()) == [("asked", "headline 0")]
    told = [("told", "title 0"), ("told", "title 1")]
    assert cohorts.stage1_pairs(HEADLINES, user, cohorts="all", wording=Spoken()) == told
    assert cohorts.stage2_pairs(HEADLINES, user, wording=Spoken()) == told
    assert cohorts.test_pairs(HEADLINES, user, cohorts="all", wording=Spoken())[0][1] == ("asked", "headline 0")
    assert cohorts.test_pairs(HEADLINES, user, cohorts="all", held_out=1, wording=Spoken())[0][1] == told[1]


@given(
    items=st.integers(1, 7),
    queries=st.integers(1, 7),
    max_items=st.integers(0, 8),
    max_queries=st.integers(0, 8),
    held_out=st.integers(0, 8),
    cohort=st.sampled_from(["paper", "all"]),
)
def test_rows_are_as_many_as_are_counted_and_the_papers_cohorts_are_counted_without_a_text(
    items, queries, max_items, max_queries, held_out, cohort
):
    user = tweet_user("u", items, queries)
    told = corpus_of(TWEETS, [user], [user])
    if cohort == "paper" and items > 1:
        told = Corpus(TWEETS, "sizes alone", told.cohorts, told.sizes, lambda user_id: pytest.fail("a text was read"))
    rows = {"cohorts": cohort, "held_out": held_out, "max_items": max_items}
    assert cohorts.stage1_count(TWEETS, told, "u", **rows) == len(cohorts.stage1_pairs(TWEETS, user, **rows))
    if held_out and items == 1:
        with pytest.raises(ValueError, match="two items at least"):
            cohorts.stage2_counts(TWEETS, told, "u", **rows, max_queries=max_queries)
        return
    trained = cohorts.stage2_pairs(TWEETS, user, max_items=max_items, held_out=held_out)
    tested = cohorts.test_pairs(TWEETS, user, cohorts=cohort, max_queries=max_queries, held_out=held_out)
    counted = cohorts.stage2_counts(TWEETS, told, "u", **rows, max_queries=max_queries)
    assert counted == (len(trained), len(tested))
