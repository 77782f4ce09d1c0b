"""What max-new-tokens leaves of the golds: cut by tokens, their end not counted, and scored by ROUGE-L."""

import pytest

from fed.answering import ceiling
from fed.forward.batching import tokenize
from fed.lamp.tasks import get_task

TWEETS = get_task("LaMP_7")
GOLDS = ["one two three four", "one two", "five"]


class Words:
    """A tokenizer whose tokens are words."""

    eos_token_id = 0

    def __init__(self):
        self.words = [""]

    def __call__(self, text, add_special_tokens):
        self.words += [word for word in text.split() if word not in self.words]
        return {"input_ids": [self.words.index(word) for word in text.split()]}

    def decode(self, tokens):
        return " ".join(self.words[token] for token in tokens)


def rows(tokenizer, max_length=100):
    return tokenize([("x", f" {gold}") for gold in GOLDS], tokenizer, max_length)


def test_a_gold_is_cut_where_its_own_tokens_are_more_and_its_end_is_none_of_them():
    tokenizer = Words()
    written = [ceiling.written(GOLDS, rows(tokenizer), tokenizer, room) for room in (1, 2, 3, 4)]
    assert written == [
        ["one", "one", "five"], ["one two", "one two", "five"], ["one two three", "one two", "five"], GOLDS,
    ]  # fmt: skip


def test_the_sums_count_the_cut_golds_and_add_rouge_l_of_all():
    tokenizer = Words()
    sums = ceiling.statistics(TWEETS, GOLDS, ceiling.written(GOLDS, rows(tokenizer), tokenizer, 2))
    assert sums == {"cut_golds": 1.0, "reachable_rougeL": pytest.approx(2 * 0.5 / 1.5 + 1 + 1)}


def test_a_gold_in_which_rouge_sees_no_word_stays_at_nothing_though_it_fits():
    tokenizer, golds = Words(), ["🎉", "a"]
    texts = ceiling.written(golds, tokenize([("x", gold) for gold in golds], tokenizer, 9), tokenizer, 2)
    sums = ceiling.statistics(TWEETS, golds, texts)
    assert sums == {"cut_golds": 0.0, "reachable_rougeL": 1.0}


def test_a_runs_ceiling_is_over_all_users_that_counted():
    parts = [{"count": 3.0, "cut_golds": 1.0, "reachable_rougeL": 2.5}, {"count": 1.0, "cut_golds": 1.0,
             "reachable_rougeL": 0.5}]  # fmt: skip
    assert ceiling.of_arm(parts) == {"golds": 4, "cut_golds": 2, "rougeL": 0.75}
    assert ceiling.of_arm([*parts, {"count": 9.0}]) == ceiling.of_arm(parts)
    assert ceiling.of_arm([{"nll": 1.0, "tokens": 2.0}]) is None and ceiling.of_arm([]) is None


def test_the_real_tokenizers_cut_is_a_beginning_of_the_gold(tiny32):
    golds = ["The quick brown fox jumps over the lazy dog again and again"]
    written = ceiling.written(golds, tokenize([("x", f" {golds[0]}")], tiny32.tokenizer, 200), tiny32.tokenizer, 4)
    assert written != golds and golds[0].startswith(written[0]) and written[0]
