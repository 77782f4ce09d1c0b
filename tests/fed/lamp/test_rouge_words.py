"""The words of any script, LaMP's own on ASCII, and the warning where LaMP's see nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import tokenizers

from fed.lamp import metrics, rouge_words
from fed.lamp.rouge_words import UnicodeWords
from fed.lamp.tasks import get_task

TWEETS = get_task("LaMP_7")
SCRIPTS = {
    "Russian": ("сегодня ШЁЛ дождь", ["сегодня", "шёл", "дождь"]),
    "Chinese": ("今天下雨了。", list("今天下雨了")),
    "Japanese": ("雨のテスト", list("雨のテスト")),
    "Korean": ("오늘 비가 왔다", ["오늘", "비가", "왔다"]),
    "Hindi": ("आज बारिश हुई", ["आज", "बारिश", "हुई"]),
    "Arabic": ("أمطرت اليوم", ["أمطرت", "اليوم"]),
    "Persian": ("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"]),
    "Hebrew": ("ירד גשם", ["ירד", "גשם"]),
    "Greek": ("έβρεξε σήμερα", ["έβρεξε", "σήμερα"]),
    "Thai": ("วันนี้", ["วั", "น", "นี้"]),
    "wide letters": ("ＡＢＣ　１２", ["abc", "12"]),
    "accents, composed or not": ("naïve cafe\u0301", ["naïve", "café"]),
    "pictographs": ("😂 great 👍🏽", ["😂", "great", "👍"]),
}


@pytest.mark.parametrize(("text", "words"), SCRIPTS.values(), ids=list(SCRIPTS))
def test_every_script_has_words_and_an_answer_equal_to_its_gold_scores_one(text, words):
    assert UnicodeWords().tokenize(text) == words
    sums = metrics.statistics(TWEETS, [text], [text], rouge_tokenizer="unicode")
    scores = metrics.scores(TWEETS, sums)
    assert scores["rouge1"] == scores["rougeL"] == pytest.approx(1)


@given(st.text(alphabet=[chr(code) for code in range(128)], max_size=60))
def test_on_ascii_the_words_are_lamps_own(text):
    assert UnicodeWords().tokenize(text) == tokenizers.DefaultTokenizer(use_stemmer=False).tokenize(text)


def test_lamps_own_scores_stand_beside_those_of_another_tokenizer_and_alone_by_default():
    golds, answers = ["шёл дождь", "it rained"], ["дождь шёл", "it rained"]
    own = metrics.scores(TWEETS, metrics.statistics(TWEETS, golds, answers))
    assert own == {"rouge1": 0.5, "rougeL": 0.5}
    both = metrics.scores(TWEETS, metrics.statistics(TWEETS, golds, answers, rouge_tokenizer="unicode"))
    assert both == pytest.approx({"rouge1": 1.0, "rougeL": 0.75, "rouge1_lamp": 0.5, "rougeL_lamp": 0.5})


def test_a_warning_comes_with_more_than_a_tenth_of_the_golds_unseen():
    golds = ["it rained"] * 9 + ["今天下雨了"]
    assert rouge_words.unseen(golds) == (1, 10) and rouge_words.warning(1, 10) is None
    text = rouge_words.warning(*rouge_words.unseen([*golds, "😂"]))
    assert text is not None and "2 of 11 golds" in text and "rouge-tokenizer" in text and "\n" not in text
    assert rouge_words.warning(0, 0) is None
