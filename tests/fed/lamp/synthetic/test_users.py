"""The embedded users: the same everywhere, different from each other, and learnable."""

import itertools
import subprocess
import sys

import pytest

from fed.lamp.records import open_corpus
from fed.lamp.synthetic import grammar
from fed.lamp.synthetic import users as synthetic
from fed.lamp.tasks import get_task

TASK = get_task("LaMP_7")


def words(text):
    return text.rstrip("?").split()


def plain_of(user):
    return [TASK.query_text(query) for query in user.queries]


def test_the_default_is_twenty_test_users_and_twenty_others_of_56_items():
    corpus = open_corpus("synthetic", TASK)
    assert {cohort: len(ids) for cohort, ids in corpus.cohorts.items()} == {"others": 20, "test": 20}
    assert set(corpus.cohorts["test"]).isdisjoint(corpus.cohorts["others"])
    for user_id in itertools.chain(*corpus.cohorts.values()):
        user = corpus.user(user_id)
        assert corpus.sizes(user_id) == (len(user.profile), len(user.queries)) == (32, 24)
        assert len({item["id"] for item in user.profile} | {query.id for query in user.queries}) == 56
        assert all(query.input.startswith(TASK.instruction) for query in user.queries)


def test_a_number_of_users_may_be_asked_for_and_does_not_change_the_users():
    corpus = open_corpus("synthetic:50", TASK, seed=3)
    assert {cohort: len(ids) for cohort, ids in corpus.cohorts.items()} == {"others": 50, "test": 50}
    assert corpus.user("test-0003") == open_corpus("synthetic:4", TASK, seed=3).user("test-0003")


@pytest.mark.parametrize("source", ["synthetic:", "synthetic:0", "synthetic:-1", "synthetic:x", "synthetic:1.5"])
def test_a_bad_number_of_users_is_refused(source):
    with pytest.raises(ValueError, match="'synthetic:USERS', where USERS is at least 1; got"):
        open_corpus(source, TASK)


def test_an_unknown_user_is_refused():
    with pytest.raises(ValueError, match="must be in its cohorts; got 'test-0099'"):
        open_corpus("synthetic", TASK).user("test-0099")
    with pytest.raises(ValueError, match="must be like 'test-0003'"):
        synthetic.make_user("nobody")


def test_a_user_is_the_same_in_every_process_whatever_the_hash_seed():
    code = "from fed.lamp.synthetic.users import make_user; print(make_user('others-0007', seed=5))"
    printed = [
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": str(hash_seed)},
        ).stdout.strip()
        for hash_seed in (1, 2)
    ]
    assert printed == [repr(synthetic.make_user("others-0007", seed=5))] * 2


def test_this_tweet_is_pinned_so_that_a_change_of_the_data_is_noticed():
    user = synthetic.make_user("test-0000")
    assert user.queries[0].input.removeprefix(TASK.instruction) == "I need to wash the dishes before I take photos."
    assert user.queries[0].gold == (
        "rt if you agree: i need to wash the dishes before i take photos, update from me and stay tuned"
    )


def test_another_seed_gives_other_habits_and_other_tweets():
    assert synthetic.habits_of("test-0000", seed=0) != synthetic.habits_of("test-0000", seed=1)
    assert synthetic.make_user("test-0000", seed=0) != synthetic.make_user("test-0000", seed=1)


def test_the_first_eight_others_and_the_first_56_test_users_all_differ():
    ids = [f"others-{n:04d}" for n in range(8)] + [f"test-{n:04d}" for n in range(56)]
    habits = [synthetic.habits_of(user_id) for user_id in ids]
    assert len(set(habits)) == 64 == len(grammar.OPENERS) * len(grammar.SIGN_OFFS)
    for start in (0, 8):  # any eight neighbours have eight openers and eight sign-offs
        some = habits[start : start + 8]
        assert len({one.opener for one in some}) == len({one.sign_off for one in some}) == 8


def test_neighbours_who_are_swapped_share_neither_opener_nor_sign_off():
    habits = [synthetic.habits_of(user_id) for user_id in synthetic.user_ids()["test"]]
    for one, other in itertools.pairwise(habits):
        assert one.opener != other.opener and one.sign_off != other.sign_off


def test_a_history_brings_the_plain_sentence_of_each_tweet_and_is_worded_as_a_query():
    user = synthetic.make_user("test-0004")
    assert TASK.has_inputs(user.profile)
    item, query = user.profile[0], user.queries[0]
    assert TASK.history_pair(item).prompt == f"{TASK.instruction}{item['input']}\ntweet:"
    assert TASK.query_pair(query).prompt == f"{query.input}\ntweet:"
    assert synthetic.collective_register(item["input"]) in item["text"]


def test_profile_and_queries_never_share_a_plain_sentence():
    for user_id in synthetic.user_ids()["test"]:
        user = synthetic.make_user(user_id)
        habits = synthetic.habits_of(user_id)
        likeliest = {synthetic.write_tweet(sentence, habits) for sentence in plain_of(user)}
        assert len(set(plain_of(user))) == 24
        assert likeliest.isdisjoint(item["text"] for item in user.profile)


def test_plain_sentences_are_many_short_and_ordinary():
    rng = synthetic.draws(0, "anyone", "test")
    sentences = [synthetic.plain_sentence(rng) for _ in range(5000)]
    assert len(set(sentences)) > 3500
    assert all(6 <= len(words(sentence)) <= 14 for sentence in sentences)
    assert all(sentence[0].isupper() and sentence[-1] in ".?" and sentence.isascii() for sentence in sentences)
    assert not any("{" in sentence for sentence in sentences)


def test_everybody_writes_in_the_collective_register():
    assert synthetic.collective_register("I am going to visit you.") == "i am gonna visit you"
    for user_id in synthetic.user_ids(5)["others"]:
        for item in synthetic.make_user(user_id).profile:
            assert item["text"] == item["text"].lower() and item["text"].startswith("rt if you agree: ")
            assert not set(item["text"].split()) & {"very", "really", "because", "tomorrow"}


def test_habits_are_kept_to_in_at_least_nine_tweets_of_ten():
    kept = total = 0
    for user_id in synthetic.user_ids()["test"]:
        habits = synthetic.habits_of(user_id)
        for item in synthetic.make_user(user_id).profile:
            kept += f", {habits.opener} and " in item["text"]
            kept += item["text"].endswith(f" and {habits.sign_off}")
            total += 2
    assert kept / total > 0.9
