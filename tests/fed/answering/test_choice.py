"""Constrained choice: the labels' tokens, one prompt for all of them, and the likeliest one."""

import math

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from fed.answering import evaluation
from fed.answering.choice import Choice
from fed.answering.edited_rows import EditedRow
from fed.answering.reader import Reader
from fed.answering.scoring import losses
from fed.edits.stack import BARE
from fed.forward.batching import tokenize
from fed.lamp.tasks import get_task
from fed.lamp.user import Query

STARS, TAGS, TWEETS = get_task("LaMP_3"), get_task("LaMP_2M"), get_task("LaMP_7")


@pytest.fixture(scope="module")
def tokenizer(tiny32):
    return tiny32.tokenizer


def test_a_labels_tokens_are_those_that_training_sees(tokenizer):
    choice = Choice.of(TAGS, tokenizer, 64)
    assert choice.labels == TAGS.labels
    for label, tokens in zip(choice.labels, choice.tokens, strict=True):
        (row,) = tokenize([("any prompt", f" {label}")], tokenizer, 64)
        assert tokens == row.completion and tokens[-1] == tokenizer.eos_token_id


def test_all_labels_of_a_query_follow_one_prompt_that_leaves_room_for_the_longest(tokenizer):
    choice = Choice.of(TAGS, tokenizer, 40)
    longest = max(map(len, choice.tokens))
    for prompt in (tuple(range(3, 90)), tuple(range(3, 9))):
        rows = choice.rows(prompt)
        assert {row.prompt for row in rows} == {prompt[-(40 - longest) :]}
        assert [row.completion for row in rows] == list(choice.tokens)
        assert max(map(len, rows)) <= 40


def test_a_cut_prompt_keeps_bos_before_every_label(tiny_tokenizer):
    tokenizer = tiny_tokenizer(bos_token="<pad>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 1)])
    choice = Choice.of(STARS, tokenizer, 20)
    prompt = tokenizer("y" * 50 + "\nscore:")["input_ids"]
    for row in choice.rows(prompt):
        assert prompt[0] == 1 and row.prompt == (1, *prompt[-16:]) and len(row) == 20


def test_a_label_that_the_tokens_cannot_write_is_refused_and_not_scored_as_another(tokenizer):
    with pytest.raises(ValueError, match="'based on a book' becomes 'based on a bo'"):
        Choice.of(TAGS, tokenizer, 16)

    class Lossy:
        eos_token_id = 0

        def __call__(self, text, add_special_tokens):
            return tokenizer(text.replace("3", "?"), add_special_tokens=add_special_tokens)

        decode = staticmethod(tokenizer.decode)

    with pytest.raises(ValueError, match="every label of LaMP_3 must be writable .* but '3' becomes '\\?'; raise"):
        Choice.of(STARS, Lossy(), 64)
    with pytest.raises(ValueError, match="needs a task with labels, got LaMP_7"):
        Choice.of(TWEETS, tokenizer, 64)


def test_the_smallest_sum_wins_the_first_of_equals_and_no_number_is_no_answer(tokenizer):
    choice = Choice.of(STARS, tokenizer, 64)
    assert choice.best([5.0, 4.0, 3.0, 3.0, 9.0]) == "3"
    assert choice.best([5.0, math.nan, 3.0, 3.0, 9.0]) == "" == choice.best([math.inf] * 5)


class BaseReader(Reader):
    """The tiny base itself."""

    def __init__(self, base):
        self.base = base

    def losses(self, questions, on_rows=None):
        rows = [EditedRow(q.row) for q in questions]
        return losses(self.base, rows, BARE, on_rows=on_rows)

    def generate(self, questions, **_):
        raise AssertionError("a choice decodes nothing")


def user_of(base, inputs, golds):
    queries = [
        Query(str(i), f"{STARS.instruction}{text}", gold)
        for i, (text, gold) in enumerate(zip(inputs, golds, strict=True))
    ]
    rows = tokenize([STARS.query_pair(query) for query in queries], base.tokenizer, 256)
    return evaluation.TestUser("u", queries, rows)


def test_the_answer_is_the_label_of_the_highest_probability_and_the_loss_that_of_the_gold(tiny64):
    """Against log-probabilities from transformers alone."""
    user = user_of(tiny64, ["good", "bad thing", "so so"], ["1", "4", "2"])
    kept, seen = {}, []
    found = evaluation.evaluate(
        STARS,
        BaseReader(tiny64),
        [user],
        [],
        has_collective=False,
        max_new_tokens=1,
        choice=Choice.of(STARS, tiny64.tokenizer, 256),
        on_answers=lambda one, arm, answers: kept.update({(one.user_id, arm): list(answers)}),
        on_rows=seen.append,
    )["u"]["base"]
    expected, nll = [], 0.0
    for query, row in zip(user.queries, user.rows, strict=True):
        sums = {}
        for label in STARS.labels:
            ids = list(row.prompt) + tiny64.tokenizer(f" {label}")["input_ids"] + [0]
            logits = tiny64.model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
            places = range(len(row.prompt), len(ids))
            sums[label] = sum(logits[place - 1, ids[place]].item() for place in places)
        expected.append(max(sums, key=sums.__getitem__))
        nll -= sums[query.gold]
    assert kept == {("u", "base"): expected}
    assert found["nll"] == pytest.approx(nll, rel=1e-9) and found["tokens"] == 3 * 3
    assert found["count"] == 3 and found["absolute"] == sum(
        abs(int(e) - int(q.gold)) for e, q in zip(expected, user.queries, strict=True)
    )
    assert sum(seen) == 2 * 3  # as many rows as a decoding run counts


def test_a_choice_scores_the_gold_as_a_decoding_run_does(tiny64):
    user = user_of(tiny64, ["good", "bad"], ["5", "3"])
    one, other = (
        evaluation.evaluate(
            STARS, BaseReader(tiny64), [user], [], has_collective=False, max_new_tokens=tokens,
            choice=Choice.of(STARS, tiny64.tokenizer, 256),
        )["u"]["base"]
        for tokens in (0, 4)
    )  # fmt: skip
    assert set(one) == {"nll", "tokens", "nll_eos", "eos_tokens"} and "squared" in other
    assert one["nll"] == pytest.approx(other["nll"], rel=1e-9) and one["tokens"] == other["tokens"]
    assert 0 < one["nll_eos"] == pytest.approx(other["nll_eos"], rel=1e-9) and one["eos_tokens"] == 2
