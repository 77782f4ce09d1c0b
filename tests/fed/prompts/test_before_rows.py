"""What stands before a prompt, and that no row sees its own answer."""

from dataclasses import replace

import pytest

from fed.lamp.tasks import get_task
from fed.lamp.user import Query, User
from fed.prompts.before_rows import Prompts
from fed.prompts.wording import example, retrieval_query

rank_bm25 = pytest.importorskip("rank_bm25")
HEADLINES, TWEETS = get_task("LaMP_4"), get_task("LaMP_7")
TOPICS = [
    "the new tax law that came",
    "a red car race",
    "tax cuts for all and their price",
    "a dog show",
    "how the car market has grown",
    "dogs and cats",
]


def headline_user():
    profile = tuple(
        {"id": f"i{n}", "text": f"article about {t}", "title": f"TITLE{n} {t}"} for n, t in enumerate(TOPICS)
    )
    queries = (
        Query("q0", f"{HEADLINES.instruction}all about the tax on a car", "GOLD of q0"),
        Query("q1", f"{HEADLINES.instruction}what cats do", "GOLD of q1"),
    )
    return User("u", profile, queries)


@pytest.fixture
def make(tiny_tokenizer):
    def prompts(user=None, task=HEADLINES, *, retrieved=0, profile="", max_length=4000):
        return Prompts(
            task,
            user or headline_user(),
            retrieved=retrieved,
            profile=profile,
            tokenizer=tiny_tokenizer(),
            max_length=max_length,
        )

    return prompts


def test_without_either_the_pairs_are_the_tasks_own(make):
    user, prompts = headline_user(), make()
    assert [prompts.query_pair(q) for q in user.queries] == [HEADLINES.query_pair(q) for q in user.queries]
    assert [prompts.history_pair(i) for i in user.profile] == [HEADLINES.history_pair(i) for i in user.profile]


@pytest.mark.parametrize("k", [1, 2, 4])
def test_a_query_gets_bm25_okapis_top_items_of_the_history_best_first(make, k):
    user, prompts = headline_user(), make(retrieved=k)
    lines = [example(HEADLINES, item) for item in user.profile]
    okapi = rank_bm25.BM25Okapi([line.split(" ") for line in lines])
    for query in user.queries:
        asked = retrieval_query(HEADLINES, HEADLINES.query_text(query)).split(" ")
        scores = okapi.get_scores(asked).round(9)
        best = sorted(((-score, -i) for i, score in enumerate(scores)))[:k]
        expected = "\n".join(lines[-i] for _, i in best) + "\n\n"
        plain = HEADLINES.query_pair(query)
        assert prompts.query_pair(query) == (expected + plain.prompt, plain.completion)
    assert (prompts.asked, prompts.left_out) == (2 * k, 0)


def test_a_history_item_retrieves_from_the_items_before_it_alone(make):
    user, prompts = headline_user(), make(retrieved=9)
    for number, item in enumerate(user.profile):
        plain, pair = HEADLINES.history_pair(item), prompts.history_pair(item)
        assert pair.completion == plain.completion and pair.prompt.endswith(plain.prompt)
        seen = {n for n in range(len(TOPICS)) if f"TITLE{n} " in pair.prompt}
        assert seen == set(range(number))  # never its own answer, never a later one

    assert prompts.history_pair(user.profile[0]) == HEADLINES.history_pair(user.profile[0])


def test_a_held_out_item_retrieves_from_what_training_may_see(make):
    whole = headline_user()
    pair = make(replace(whole, profile=whole.profile[:4]), retrieved=9).history_pair(whole.profile[5])
    assert {n for n in range(len(TOPICS)) if f"TITLE{n} " in pair.prompt} == {0, 1, 2, 3}


def test_no_prompt_of_a_query_holds_a_gold_answer(make):
    user, prompts = headline_user(), make(retrieved=9, profile="writes about cars")
    assert not any("GOLD" in prompts.query_pair(query).prompt for query in user.queries)


def test_bare_tweets_train_bare_and_their_queries_retrieve(make):
    profile = tuple({"id": str(n), "text": f"tweet about {t}"} for n, t in enumerate(TOPICS))
    user = User("u", profile, (Query("q", f"{TWEETS.instruction}cats again", "CATS"),))
    prompts = make(user, TWEETS, retrieved=1, profile="likes cats")
    assert prompts.history_pair(profile[3]) == TWEETS.history_pair(profile[3])
    pair = prompts.query_pair(user.queries[0])
    assert pair.prompt == f"likes cats\ntweet: tweet about dogs and cats\n\n{user.queries[0].input}\ntweet:"


def test_tweets_with_their_plain_sentence_retrieve_from_those_before_them(make):
    profile = tuple({"id": str(n), "input": f"about {t}", "text": f"tweet {t}"} for n, t in enumerate(TOPICS))
    prompts = make(User("u", profile, ()), TWEETS, retrieved=1)
    assert prompts.history_pair(profile[0]) == TWEETS.history_pair(profile[0])  # there is nothing before it
    pair, alone = prompts.history_pair(profile[3]), TWEETS.history_pair(profile[3])
    assert pair.prompt.endswith(alone.prompt) and pair.prompt.startswith("tweet: tweet ")
    assert pair.prompt.removesuffix(alone.prompt).strip() in {f"tweet: {item['text']}" for item in profile[:3]}


def test_the_profile_comes_first_and_composes_with_retrieved_items(make):
    query = headline_user().queries[0]
    plain = HEADLINES.query_pair(query).prompt
    found = make(retrieved=1).query_pair(query).prompt.removesuffix(plain)
    assert make(profile="short titles").query_pair(query).prompt == "short titles\n" + plain
    assert make(profile="short titles", retrieved=1).query_pair(query).prompt == "short titles\n" + found + plain


def test_what_does_not_fit_is_left_out_the_worst_item_first_then_the_profiles_end(make):
    """One character is one token here."""
    query = headline_user().queries[0]
    plain, reserve = HEADLINES.query_pair(query).prompt, HEADLINES.max_new_tokens
    whole = make(retrieved=3, profile="one two three").query_pair(query).prompt
    lines = whole.removeprefix("one two three\n").removesuffix("\n\n" + plain).split("\n")
    assert len(lines) == 3
    for kept in (3, 2, 1, 0):
        expected = "one two three\n" + "\n".join(lines[:kept]) + "\n\n" * bool(kept) + plain
        prompts = make(retrieved=3, profile="one two three", max_length=len(expected) + reserve)
        assert prompts.query_pair(query).prompt == expected
        assert (prompts.asked, prompts.left_out) == (3, 3 - kept)
    for room, profile in ((13, "one two\n"), (4, "one\n"), (3, ""), (-5, "")):
        prompts = make(profile="one two three", max_length=len(plain) + reserve + room)
        assert prompts.query_pair(query).prompt == profile + plain


def test_long_texts_are_shortened_alike_before_an_item_is_left_out_and_answers_never(make):
    words = [" ".join(f"{letter}{n}" for n in range(40)) for letter in "abc"]
    profile = tuple({"id": str(n), "text": text, "title": f"TITLE{n} " + "t" * 30} for n, text in enumerate(words))
    user = User("u", profile, (Query("q", f"{HEADLINES.instruction}b1 c2 c3", "GOLD"),))
    plain, reserve = HEADLINES.query_pair(user.queries[0]).prompt, HEADLINES.max_new_tokens

    def shown(count, source_words):
        lines = [example(HEADLINES, profile[n], source_words=source_words) for n in (2, 1, 0)[:count]]
        return "\n".join(lines) + "\n\n" + plain

    for source_words in (40, 25, 12):
        prompts = make(user, retrieved=3, max_length=len(shown(3, source_words)) + reserve)
        assert prompts.query_pair(user.queries[0]).prompt == shown(3, source_words) and prompts.left_out == 0
    tight = make(user, retrieved=3, max_length=len(shown(2, 12)) + reserve)
    assert tight.query_pair(user.queries[0]).prompt == shown(2, 12) and tight.left_out == 1
    too_tight = make(user, retrieved=3, max_length=len(shown(1, 12)) + reserve - 1)
    assert too_tight.query_pair(user.queries[0]).prompt == plain and too_tight.left_out == 3
