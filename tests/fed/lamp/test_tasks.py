"""The wording of prompts, against the development data's own words and OPPU's recipe."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fed.lamp.records import Query
from fed.lamp.tasks import TASKS, cut_words, get_task

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


def read_users(task_name):
    path = DATA / task_name / "user_top_100_history.json"
    if not path.is_file():
        pytest.skip("no development data on this machine")
    return json.loads(path.read_text("utf-8"))


def test_a_tweet_query_is_its_own_words_and_the_cue():
    pair = get_task("LaMP_7").query_pair(Query("q", "Paraphrase this: hello", "hiya"))
    assert pair == ("Paraphrase this: hello\ntweet:", " hiya")


def test_a_tweet_history_item_is_a_bare_tweet():
    assert get_task("LaMP_7").history_pair({"id": "1", "text": "hiya"}) == ("tweet:", " hiya")


def test_a_tweet_that_brings_its_plain_sentence_is_worded_as_a_query():
    task, item = get_task("LaMP_7"), {"id": "1", "input": "hello", "text": "hiya"}
    assert task.history_pair(item) == task.query_pair(Query("q", f"{task.instruction}hello", "hiya"))
    assert task.has_inputs([item, item]) and not task.has_inputs([item, {"id": "2", "text": "x"}])
    assert not task.has_inputs([]) and get_task("LaMP_4").has_inputs([])


@pytest.mark.parametrize(
    ("name", "item", "prompt", "completion"),
    [
        (
            "LaMP_2N",
            {"text": "T", "category": "crime"},
            "Which category does this article relate to among the following categories? "
            "Just answer with the category name without further explanation. categories: [women, religion, "
            "politics, style & beauty, entertainment, culture & arts, sports, science & technology, travel, "
            "business, crime, education, healthy living, parents, food & drink] article: T\ncategory:",
            " crime",
        ),
        (
            "LaMP_2M",
            {"description": "T", "tag": "sci-fi"},
            "Which tag does this movie relate to among the following tags? "
            "Just answer with the tag name without further explanation. tags: [sci-fi, based on a book, "
            "comedy, action, twist ending, dystopia, dark comedy, classic, psychology, fantasy, romance, "
            "thought-provoking, social commentary, violence, true story] description: T\ntag:",
            " sci-fi",
        ),
        (
            "LaMP_3",
            {"text": "T", "score": "4"},
            "What is the score of the following review on a scale of 1 to 5? "
            "just answer with 1, 2, 3, 4, or 5 without further explanation. review: T\nscore:",
            " 4",
        ),
        (
            "LaMP_4",
            {"text": "T", "title": "H"},
            "Generate a headline for the following article: T\nheadline:",
            " H",
        ),
        (
            "LaMP_5",
            {"abstract": "T", "title": "H"},
            "Generate a title for the following abstract of a paper: T\ntitle:",
            " H",
        ),
    ],
)
def test_a_history_item_is_put_in_a_querys_words(name, item, prompt, completion):
    assert get_task(name).history_pair({"id": "1", **item}) == (prompt, completion)


@pytest.mark.parametrize("name", TASKS)
def test_every_query_of_the_development_data_starts_with_the_instruction(name):
    task = get_task(name)
    for user in read_users(name):
        for query in user["query"]:
            assert query["input"].startswith(task.instruction)
            assert task.query_text(Query(**query)) == query["input"][len(task.instruction) :]


@pytest.mark.parametrize("name", ["LaMP_2N", "LaMP_2M", "LaMP_3", "LaMP_4", "LaMP_5"])
def test_history_and_query_of_the_same_text_give_the_same_prompt(name):
    task = get_task(name)
    text = "word " * 800
    item = {"id": "1", task.source_field: text, task.target_field: "x"}
    query = Query("q", task.instruction + text, "x")
    assert task.history_pair(item) == task.query_pair(query)


def test_long_texts_are_cut_to_768_words_and_the_instruction_is_not_counted():
    task = get_task("LaMP_4")
    prompt = task.query_pair(Query("q", task.instruction + "a " * 999, "x")).prompt
    assert prompt == task.instruction + " ".join(["a"] * 768) + "\nheadline:"


def test_a_short_text_is_left_untouched_with_its_line_breaks_and_double_spaces():
    text = "a  b\n\nc " * 100
    assert cut_words(text) is text


def test_a_query_in_other_words_is_kept_and_cut_as_a_whole():
    pair = get_task("LaMP_4").query_pair(Query("q", "x " * 800, "y"))
    assert pair.prompt == " ".join(["x"] * 768) + "\nheadline:"


def test_tasks_agree_with_lamp_on_kinds_labels_and_metrics():
    assert list(TASKS) == ["LaMP_2N", "LaMP_2M", "LaMP_3", "LaMP_4", "LaMP_5", "LaMP_7"]
    assert [len(task.labels) for task in TASKS.values()] == [15, 15, 5, 0, 0, 0]
    assert get_task("LaMP_3").metrics == ("mae", "rmse")
    assert get_task("LaMP_2M").metrics == ("accuracy", "f1")
    assert get_task("LaMP_5").metrics == ("rouge1", "rougeL")
    assert (get_task("LaMP_2N").source_field, get_task("LaMP_2N").target_field) == ("text", "category")
    assert (get_task("LaMP_7").source_field, get_task("LaMP_7").target_field) == (None, "text")


def test_an_unknown_task_is_refused_and_the_known_ones_are_named():
    with pytest.raises(ValueError, match=r"LaMP_2N, LaMP_2M, LaMP_3, LaMP_4, LaMP_5, LaMP_7; got 'LaMP_1'"):
        get_task("LaMP_1")


def test_importing_the_package_needs_neither_datasets_nor_rouge_nor_flower():
    code = (
        "import sys, fed.lamp.records, fed.lamp.metrics, fed.lamp.synthetic.users; "
        "print([m for m in ('datasets', 'rouge_score', 'nltk', 'flwr', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_text_of_ten_million_letters_in_a_row_becomes_a_row_that_a_tokenizer_can_take():
    pair = get_task("LaMP_7").history_pair({"id": "1", "text": "ab" * 5_000_000})
    assert len(pair.completion) == 1 + 768 * 64 and pair.completion.startswith(" abab")
    assert cut_words("今天下雨了" * 9) == "今天下雨了" * 9


def test_the_words_of_real_texts_are_never_so_long_that_letters_are_counted():
    users = read_users("LaMP_4")
    texts = [item["text"] for user in users for item in user["profile"]]
    assert texts and all(len(" ".join(text.split(" ")[:768])) < 768 * 64 for text in texts)
