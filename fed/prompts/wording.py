"""How a user's history is worded: as an example before a prompt, as what BM25 compares, as a request for a profile.

The forms are OPPU's (Tan et al., arXiv 2402.04401): a history line names its fields, and is at once the example in the
prompt and the document of BM25 (less OPPU's line break, which hides each line's last word from BM25); a retrieval query
carries the task's question before the text, so that its words take part in the ranking; fields are cut to 368 words in
an example and to 200 in the request for a profile. The question is the first sentence of LaMP's own instruction; the
requests ask what OPPU's ask, in words of our own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fed.base.tokens.chat_template import has_template
from fed.forward.batching import tokenize
from fed.forward.tokenization import UNCUT
from fed.lamp.tasks import Task, cut_words

EXAMPLE_WORDS, PROFILE_WORDS = 368, 200

SOURCES: Mapping[str, str] = {  # what an item's text is called; LaMP_7's items have none
    "LaMP_2N": "article",
    "LaMP_2M": "description",
    "LaMP_3": "review",
    "LaMP_4": "article",
    "LaMP_5": "abstract",
}
_STYLE = "Be specific about wording, length, punctuation and tone, and write the description alone."
REQUESTS: Mapping[str, str] = {
    "LaMP_2N": "These are past articles of one journalist and their categories. Which category does this journalist "
    'write in most? Answer in the form "most popular category: <category>".',
    "LaMP_2M": "These are past movies of one user and the tags that the user gave them. Which tag does this user give "
    'most? Answer in the form "most popular tag: <tag>".',
    "LaMP_3": "These are past reviews of one user and their scores. Which score does this user give most often to what "
    'is liked, and which to what is not? Answer in the form "most common positive score: <score>, most common '
    'negative score: <score>".',
    "LaMP_4": "These are past articles of one author and their headlines. Describe how this author words headlines, "
    f"so that the headline of another article could be foretold. {_STYLE}",
    "LaMP_5": "These are past abstracts of one author and their titles. Describe how this author words titles, so "
    f"that the title of another paper could be foretold from its abstract. {_STYLE}",
    "LaMP_7": "These are past tweets of one person. Describe how this person words tweets, so that a plain sentence "
    f"could be rewritten to sound like one of them. {_STYLE}",
}


def example(task: Task, item: Mapping[str, str], words: int = EXAMPLE_WORDS, source_words: int | None = None) -> str:
    """`"{source}: {text} {cue}: {answer}"`, or `"tweet: {text}"` for LaMP_7.

    Each field is cut to `words`, the text to `source_words` where that is given.
    """
    answer = f"{task.cue}: {cut_words(item[task.target_field], words)}"
    if task.source_field is None:
        return answer
    text = cut_words(item[task.source_field], words if source_words is None else source_words)
    return f"{SOURCES[task.name]}: {text} {answer}"


def retrieval_query(task: Task, text: str) -> str:
    """What BM25 is asked for a text, cut to 768 words: the task's question, without its list of answers, and the text.

    `"What is the score of the following review on a scale of 1 to 5? review: {text}"`
    """
    question, mark, _ = task.instruction.partition("? ")
    return f"{question}? {SOURCES[task.name]}: {cut_words(text)}" if mark else task.instruction + cut_words(text)


def profile_request(task: Task, items: Sequence[Mapping[str, str]]) -> str:
    """The request for a profile text that a user's items go into."""
    history = " | ".join(example(task, item, PROFILE_WORDS) for item in items)
    return f"{REQUESTS[task.name]} History: {history} Answer:"


def request_tokens(tokenizer: Any, request: str) -> tuple[int, ...]:
    """A request to the base itself, in the chat format of its tokenizer where that has one."""
    prompt_format = "chat" if has_template(tokenizer) else "plain"
    (row,) = tokenize([(request, "")], tokenizer, UNCUT, prompt_format=prompt_format)
    return row.prompt
