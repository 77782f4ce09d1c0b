"""The embedded users: the same everywhere, different from each other, and learnable."""

import itertools
import subprocess
import sys

import pytest

from fed.lamp import metrics
from fed.lamp.records import open_corpus
from fed.lamp.synthetic import grammar
from fed.lamp.synthetic import users as synthetic
from fed.lamp.tasks import get_task

TASK = get_task("LaMP_7")


def words(text):
    return text.rstrip("?").split()


def plain_of(user):
    return [TASK.query_text(query) for query in user.queries]


def test_the_default_is_twenty_test_users_and_twenty_others_of_forty_items():
    corpus = open_corpus("synthetic", TASK)
    assert {cohort: len(ids) for cohort, ids in corpus.cohorts.items()} == {"others": 20, "test": 20}
    assert set(corpus.cohorts["test"]).isdisjoint(corpus.cohorts["others"])
    for user_id in itertools.chain(*corpus.cohorts.values()):
        user = corpus.user(user_id)
        assert corpus.sizes(user_id) == (len(user.profile), len(user.queries)) == (28, 12)
        assert len({item["id"] for item in user.profile} | {query.id for query in user.queries}) == 40
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
    assert user.queries[0].input.removeprefix(TASK.instruction) == "My coach made a pie and it was so good."
    assert user.queries[0].gold == "geez muh coach made a pie n it was that fab namaste"


def test_another_seed_gives_other_habits_and_other_tweets():
    assert synthetic.habits_of("test-0000", seed=0) != synthetic.habits_of("test-0000", seed=1)
    assert synthetic.make_user("test-0000", seed=0) != synthetic.make_user("test-0000", seed=1)


def test_the_first_hundred_users_all_differ_in_opener_or_sign_off():
    ids = [user_id for ids in synthetic.user_ids(50).values() for user_id in ids]
    habits = [synthetic.habits_of(user_id) for user_id in ids]
    assert len({(one.openers[0], one.sign_offs[0]) for one in habits}) == 100
    assert len({(frozenset(one.openers), frozenset(one.sign_offs)) for one in habits}) == 100


def test_the_forty_default_users_have_forty_openers_and_forty_sign_offs():
    ids = [user_id for ids in synthetic.user_ids().values() for user_id in ids]
    habits = [synthetic.habits_of(user_id) for user_id in ids]
    assert len({one.openers[0] for one in habits}) == len({one.sign_offs[0] for one in habits}) == 40


def test_openers_and_sign_offs_pair_up_in_2304_ways():
    assert len(set(grammar.OPENERS)) == len(set(grammar.SIGN_OFFS)) == 48
    pairs = {(k % 48, (k + k // 48) % 48) for k in range(48 * 48)}
    assert len(pairs) == 2304


def test_profile_and_queries_never_share_a_plain_sentence():
    for user_id in synthetic.user_ids()["test"]:
        user = synthetic.make_user(user_id)
        habits = synthetic.habits_of(user_id)
        likeliest = {synthetic.write_tweet(sentence, habits) for sentence in plain_of(user)}
        assert len(set(plain_of(user))) == 12
        assert likeliest.isdisjoint(item["text"] for item in user.profile)


def test_plain_sentences_are_many_short_and_ordinary():
    rng = synthetic.draws(0, "anyone", "test")
    sentences = [synthetic.plain_sentence(rng) for _ in range(5000)]
    assert len(set(sentences)) > 3500
    assert all(6 <= len(words(sentence)) <= 14 for sentence in sentences)
    assert all(sentence[0].isupper() and sentence[-1] in ".?" and sentence.isascii() for sentence in sentences)
    assert not any("{" in sentence for sentence in sentences)


def test_everybody_writes_in_the_collective_register():
    assert synthetic.collective_register("I am going to visit you and your dog.") == "im gonna visit u n your dog"
    for user_id in synthetic.user_ids(5)["others"]:
        for item in synthetic.make_user(user_id).profile:
            assert item["text"] == item["text"].lower()
            assert not set(item["text"].split()) & {"you", "and", "to", "because", "before", "please"}


def test_habits_are_kept_to_in_at_least_nine_tweets_of_ten():
    kept = total = 0
    for user_id in synthetic.user_ids()["test"]:
        habits = synthetic.habits_of(user_id)
        for item in synthetic.make_user(user_id).profile:
            text = f"{item['text']} "
            kept += text.startswith(f"{habits.openers[0]} ") + text.endswith(f" {habits.sign_offs[0]} ")
            total += 2
    assert kept / total > 0.9


def test_knowing_the_user_is_worth_much_and_another_user_costs_much():
    users = [synthetic.make_user(user_id) for user_id in synthetic.user_ids()["test"]]
    golds = [query.gold for user in users for query in user.queries]

    def rouge(write):
        answers = [write(n, text) for n, user in enumerate(users) for text in plain_of(user)]
        return metrics.scores(TASK, metrics.statistics(TASK, golds, answers))["rougeL"]

    def own(n, text):
        return synthetic.write_tweet(text, synthetic.habits_of(users[n].user_id))

    plain = rouge(lambda n, text: text)
    shared = rouge(lambda n, text: synthetic.collective_register(text))
    swapped = rouge(lambda n, text: own((n + 1) % len(users), text))
    assert plain < shared < rouge(own)
    assert plain == pytest.approx(0.506, abs=5e-4)  # the docstring's three numbers
    assert shared == pytest.approx(0.683, abs=5e-4)
    assert rouge(own) == pytest.approx(0.979, abs=5e-4)
    assert swapped < shared


def test_the_module_prints_samples_and_ceilings(capsys):
    synthetic.main(users=2)
    printed = capsys.readouterr().out
    assert "test-0001: 28 tweets, 12 queries" in printed
    assert "in the collective register" in printed
