"""The six LaMP tasks that PerFit reports on: wording, labels, metrics.

Sources: Salemi et al., "LaMP: When Large Language Models Meet Personalization" (arXiv 2304.11406) for the
tasks and the words of a query; Tan et al., OPPU (arXiv 2402.04401, `prompt/prompt.json`) for the cue after
the text, the cut at 768 words and LaMP-7's history of bare tweets. `LaMP_2N` (news categories) is LaMP's
first LaMP-2, `LaMP_2M` (movie tags) its present one.

A prompt is the query's own words, a line break and a cue; the completion is what the user wrote, after a
space:

    query     "{input}\\n{cue}:"               " {gold}"
    history   "{instruction}{text}\\n{cue}:"   " {past answer}"   the same words as a query's
    history   "tweet:"                        " {tweet}"         LaMP_7's bare tweets, whose plain text is not known

Absent on purpose: LaMP_1 (citations) and LaMP_6 (e-mails, not public), which PerFit does not report. The paper
fine-tunes a base model on plain text; these words in a chat's turns are `fed.forward.tokenization`'s affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fed.lamp.user import Query

MAX_WORDS = 768  # as OPPU's get_first_k_tokens(text, 768), but see `cut_words`
LONGEST_WORD = 64  # characters, on average over a text
INPUT_FIELD = "input"  # of a profile item whose task's history holds answers alone, where it brings what it answers


class Pair(NamedTuple):
    """One training example or question; `completion` starts with exactly one space of its own."""

    prompt: str
    completion: str


class PersonalPair(Pair):
    """A pair whose prompt begins with a text about the user, `about`, its line break included."""

    about: str

    def __new__(cls, prompt: str, completion: str, about: str) -> PersonalPair:
        pair = super().__new__(cls, prompt, completion)
        pair.about = about
        return pair


@dataclass(frozen=True)
class Task:
    """What one LaMP task asks, of whom, and how answers are scored.

    `instruction` is what stands before the text in a query's input and ends in a space. A profile item's text
    is in `source_field` (None: the history holds only what the user wrote), what the user made of it in
    `target_field`.
    `max_new_tokens` covers every gold of the development data with SmolLM2's tokenizer and leaves room.
    """

    name: str
    kind: str  # "classification" | "rating" | "generation"
    instruction: str
    cue: str
    labels: tuple[str, ...]  # () for generation; the wording and the order of LaMP's queries
    metrics: tuple[str, ...]
    source_field: str | None
    target_field: str
    max_new_tokens: int
    folders: tuple[str, ...]  # the names a data folder of this task goes by: ours, OPPU's

    def query_text(self, query: Query) -> str:
        """The query's text without the instruction (all of an input that is worded differently), uncut."""
        return query.input.removeprefix(self.instruction)

    def query_pair(self, query: Query) -> Pair:
        """`"{input}\\n{cue}:"` and `" {gold}"`; the text after the instruction is cut to 768 words."""
        text = self.query_text(query)
        instruction = query.input[: len(query.input) - len(text)]
        return Pair(f"{instruction}{cut_words(text)}\n{self.cue}:", f" {cut_words(query.gold)}")

    def source_of(self, item: Mapping[str, str]) -> str | None:
        """The text that a profile item is the user's answer to; None where the history does not say.

        LaMP_7's items are bare tweets; one that brings its plain sentence (`INPUT_FIELD`) has a source all the same.
        """
        return item.get(self.source_field or INPUT_FIELD)

    def history_pair(self, item: Mapping[str, str]) -> Pair:
        """A profile item in a query's words, each field cut to 768 words; an item without a source is its cue alone."""
        source, completion = self.source_of(item), f" {cut_words(item[self.target_field])}"
        if source is None:
            return Pair(f"{self.cue}:", completion)
        return Pair(f"{self.instruction}{cut_words(source)}\n{self.cue}:", completion)

    def item_as_query(self, item: Mapping[str, str]) -> Query:
        """A profile item asked as a query: the instruction and its text; a bare tweet has no text."""
        return Query(item["id"], f"{self.instruction}{self.source_of(item) or ''}", item[self.target_field])

    def has_inputs(self, history: Sequence[Mapping[str, str]]) -> bool:
        """Whether every one of these profile items says what it answers, so that it can be asked as a query is."""
        if self.source_field is not None:
            return True
        return bool(history) and all(INPUT_FIELD in item for item in history)


def cut_words(text: str, limit: int = MAX_WORDS) -> str:
    """The first `limit` words of `text` by `split(" ")`; a shorter text comes back untouched.

    OPPU's get_first_k_tokens splits by any white space and joins by one space, so that it changes shorter texts too.
    Of a text without spaces for that long (another script, or ten million letters in a row, which a tokenizer would
    take minutes for) the first `LONGEST_WORD` characters a word are as many as any row can hold.
    """
    text = text[: limit * LONGEST_WORD]
    words = text.split(" ")
    return text if len(words) <= limit else " ".join(words[:limit])


def get_task(name: str) -> Task:
    """The task called `name`. Raises ValueError, naming the known tasks, for any other."""
    if name not in TASKS:
        raise ValueError(f"the task must be one of {', '.join(TASKS)}; got {name!r}")
    return TASKS[name]


_CATEGORIES = (
    "women, religion, politics, style & beauty, entertainment, culture & arts, sports, science & technology, "
    "travel, business, crime, education, healthy living, parents, food & drink"
)
_TAGS = (
    "sci-fi, based on a book, comedy, action, twist ending, dystopia, dark comedy, classic, psychology, "
    "fantasy, romance, thought-provoking, social commentary, violence, true story"
)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task(
            name="LaMP_2N",
            kind="classification",
            instruction="Which category does this article relate to among the following categories? "
            "Just answer with the category name without further explanation. "
            f"categories: [{_CATEGORIES}] article: ",
            cue="category",
            labels=tuple(_CATEGORIES.split(", ")),
            metrics=("accuracy", "f1"),
            source_field="text",
            target_field="category",
            max_new_tokens=8,
            folders=("LaMP_2N", "news_categorize"),
        ),
        Task(
            name="LaMP_2M",
            kind="classification",
            instruction="Which tag does this movie relate to among the following tags? "
            "Just answer with the tag name without further explanation. "
            f"tags: [{_TAGS}] description: ",
            cue="tag",
            labels=tuple(_TAGS.split(", ")),
            metrics=("accuracy", "f1"),
            source_field="description",
            target_field="tag",
            max_new_tokens=8,
            folders=("LaMP_2M", "movie_tagging"),
        ),
        Task(
            name="LaMP_3",
            kind="rating",
            instruction="What is the score of the following review on a scale of 1 to 5? "
            "just answer with 1, 2, 3, 4, or 5 without further explanation. review: ",
            cue="score",
            labels=("1", "2", "3", "4", "5"),
            metrics=("mae", "rmse"),
            source_field="text",
            target_field="score",
            max_new_tokens=4,
            folders=("LaMP_3", "product_rating"),
        ),
        Task(
            name="LaMP_4",
            kind="generation",
            instruction="Generate a headline for the following article: ",
            cue="headline",
            labels=(),
            metrics=("rouge1", "rougeL"),
            source_field="text",
            target_field="title",
            max_new_tokens=48,
            folders=("LaMP_4", "news_headline"),
        ),
        Task(
            name="LaMP_5",
            kind="generation",
            instruction="Generate a title for the following abstract of a paper: ",
            cue="title",
            labels=(),
            metrics=("rouge1", "rougeL"),
            source_field="abstract",
            target_field="title",
            max_new_tokens=48,
            folders=("LaMP_5", "scholarly_title"),
        ),
        Task(
            name="LaMP_7",
            kind="generation",
            instruction="Paraphrase the following tweet without any explanation before or after it: ",
            cue="tweet",
            labels=(),
            metrics=("rouge1", "rougeL"),
            source_field=None,
            target_field="text",
            max_new_tokens=64,
            folders=("LaMP_7", "tweet_paraphrase"),
        ),
    )
}
