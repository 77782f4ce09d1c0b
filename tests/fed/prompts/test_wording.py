"""History lines, retrieval queries and profile requests of the six tasks."""

import pytest

from fed.lamp.tasks import TASKS, get_task
from fed.prompts.wording import REQUESTS, SOURCES, example, profile_request, retrieval_query


def item_of(task, text="some text", answer="an answer"):
    return {"id": "1", task.target_field: answer} | ({task.source_field: text} if task.source_field else {})


@pytest.mark.parametrize(
    ("name", "line", "query"),
    [
        (
            "LaMP_2N",
            "article: some text category: an answer",
            "Which category does this article relate to among the following categories? article: T",
        ),
        (
            "LaMP_2M",
            "description: some text tag: an answer",
            "Which tag does this movie relate to among the following tags? description: T",
        ),
        (
            "LaMP_3",
            "review: some text score: an answer",
            "What is the score of the following review on a scale of 1 to 5? review: T",
        ),
        ("LaMP_4", "article: some text headline: an answer", "Generate a headline for the following article: T"),
        (
            "LaMP_5",
            "abstract: some text title: an answer",
            "Generate a title for the following abstract of a paper: T",
        ),
        (
            "LaMP_7",
            "tweet: an answer",
            "Paraphrase the following tweet without any explanation before or after it: T",
        ),
    ],
)
def test_lines_and_queries_are_worded_as_oppus(name, line, query):
    task = get_task(name)
    assert example(task, item_of(task)) == line
    assert retrieval_query(task, "T") == query


def test_every_task_has_its_words():
    assert set(REQUESTS) == set(TASKS)
    assert set(SOURCES) == {name for name, task in TASKS.items() if task.source_field}


def test_fields_are_cut_to_368_words_in_a_line_and_to_200_in_a_request():
    task, long = get_task("LaMP_4"), " ".join(f"w{i}" for i in range(900))
    line = example(task, item_of(task, long))
    assert "w367 headline:" in line and "w368" not in line
    asked = profile_request(task, [item_of(task, long), item_of(task)])
    assert "w199 headline: an answer | article: some text headline: an answer Answer:" in asked and "w200" not in asked
    assert asked.startswith(REQUESTS["LaMP_4"])
    assert "w767" in retrieval_query(task, long) and "w768" not in retrieval_query(task, long)
