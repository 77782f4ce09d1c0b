"""BM25 against rank_bm25's BM25Okapi, which LaMP and OPPU use, on the same tokens."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fed.prompts.retrieval import Okapi

rank_bm25 = pytest.importorskip("rank_bm25")

WORDS = st.sampled_from(["the", "a", "red", "car", "of", "tax", "news", "", "dog\n", "Über"])
TEXTS = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)


@given(st.lists(TEXTS, min_size=1, max_size=12), TEXTS)
def test_scores_are_those_of_bm25_okapi(documents, query):
    """Words of more than half the documents have a negative idf there, which is floored to ε times the mean."""
    expected = rank_bm25.BM25Okapi([d.split(" ") for d in documents]).get_scores(query.split(" "))
    np.testing.assert_allclose(Okapi(documents).scores(query), expected, rtol=1e-12, atol=1e-12)


@given(st.lists(TEXTS, min_size=1, max_size=12), TEXTS, st.integers(1, 4))
def test_the_retrieved_items_are_okapis_top_ones_and_equal_scores_favour_the_later_item(documents, query, count):
    scores = rank_bm25.BM25Okapi([d.split(" ") for d in documents]).get_scores(query.split(" ")).round(9)
    expected = sorted(range(len(documents)), key=lambda i: (-scores[i], -i))[:count]
    assert Okapi(documents).top(query, count) == expected


def test_on_real_sentences_the_ranking_is_get_top_ns_own():
    draw = np.random.default_rng(0)
    vocabulary = [f"w{i}" for i in range(60)]
    documents = [" ".join(draw.choice(vocabulary, size=draw.integers(8, 30))) for _ in range(80)]
    okapi, ours = rank_bm25.BM25Okapi([d.split(" ") for d in documents]), Okapi(documents)
    for _ in range(30):
        query = " ".join(draw.choice(vocabulary, size=9))
        expected = okapi.get_top_n(query.split(" "), documents, n=4)
        assert [documents[i] for i in ours.top(query, 4)] == expected


def test_the_floor_for_a_word_of_every_document_is_a_quarter_of_the_mean_idf():
    """By hand: N = 2, "x" in both, "y" in one: idf ln(0.5/2.5) and ln(1.5/1.5) = 0; mean = ln(0.2) / 2."""
    ours = Okapi(["x y", "x x"])
    floor = 0.25 * np.log(0.2) / 2
    tf = np.array([1 * 2.5 / (1 + 1.5), 2 * 2.5 / (2 + 1.5)])  # |D| = avgdl
    np.testing.assert_allclose(ours.scores("x"), floor * tf, rtol=1e-12)
    np.testing.assert_allclose(ours.scores("x unknown x"), 2 * floor * tf, rtol=1e-12)


def test_tokens_are_by_one_space_and_keep_case_and_line_breaks():
    ours = Okapi(["Red car\n", "red car", "blue bus"])
    assert ours.top("Red", 1) == [0] and ours.top("car", 1) == [1]
    assert len(ours.top("red", 9)) == 3


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match="at least one document"):
        Okapi([])
