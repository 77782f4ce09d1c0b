"""What stands before a row's own prompt: the user's profile text, and items retrieved from the user's history.

    "{profile}\\n" "{example 1}\\n{example 2}\\n…\\n\\n" "{the task's own prompt}"

Two settings choose it for a run, whatever its method: `retrieved` (how many items, best first; OPPU's k) and `profile`.
They compose with every method that trains, as OPPU's +RAG and +PAG, since the same words stand before the rows of
stage 1, of stage 2 and of the test, in all arms: arms differ in tensors alone. `rag` and `pag` are the untrained base
with them (`fed.methods.non_personalized`).

No row sees its own answer: a query retrieves from the user's history, which does not hold it; a history item retrieves
from the items before it alone, as OPPU does. Where the history has no inputs (LaMP_7's bare tweets), its rows stay
bare, as in OPPU: the only text to retrieve by would be the answer; with `history-rows = "pairs"` it is the plain
wording (`fed.prompts.plain_wording`). The profile is written from the history as a whole.

Where all this is longer than `max-length` less the longest answer, the items' texts are shortened alike, as LaMP does,
down to 12 words; then the worst items are left out, and then the profile's end. A row's gold answer has no say in that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fed.forward.tokenization import around
from fed.lamp.tasks import Pair, PersonalPair, Task
from fed.lamp.user import Query, User
from fed.prompts.retrieval import Okapi
from fed.prompts.wording import EXAMPLE_WORDS, example, retrieval_query

SHORTEST = 12  # words of an item's text that are worth showing


class Prompts:
    """One user's prompts; wears the task's own two functions, `query_pair` and `history_pair`.

    Args:
        retrieved: items before each prompt; 0: none.
        profile: the user's; "" : none.
        tokenizer, max_length, prompt_format: as the rows' own (`fed.forward.tokenization`).
    Attributes:
        asked, left_out: how many items were retrieved so far, and how many of these did not fit.
    """

    def __init__(
        self,
        task: Task,
        user: User,
        *,
        retrieved: int,
        profile: str,
        tokenizer: Any,
        max_length: int,
        prompt_format: str = "plain",
    ) -> None:
        self._task, self._user = task, user
        self._retrieved, self._profile = retrieved, profile
        self._tokenizer = tokenizer
        self._room = max_length - task.max_new_tokens - around(tokenizer, prompt_format)
        self._place = {item["id"]: i for i, item in enumerate(user.profile)}
        self._examples = [example(task, item) for item in user.profile]
        self._whole: Okapi | None = None
        self.asked = self.left_out = 0

    def query_pair(self, query: Query) -> Pair:
        """The task's pair for a query, after what all of the history gives."""
        pair = self._task.query_pair(query)
        found: list[int] = []
        if self._retrieved:
            self._whole = self._whole or Okapi(self._examples)
            text = retrieval_query(self._task, self._task.query_text(query))
            found = self._whole.top(text, self._retrieved)
        return self._after(found, pair)

    def history_pair(self, item: Mapping[str, str]) -> Pair:
        """The task's pair for an item of the history, after what the items before it give."""
        pair, source = self._task.history_pair(item), self._task.source_of(item)
        if source is None:
            return pair
        found: list[int] = []
        earlier = self._examples[: self._place.get(item["id"])]  # all, where it is held out
        if self._retrieved and earlier:
            found = Okapi(earlier).top(retrieval_query(self._task, source), self._retrieved)
        return self._after(found, pair)

    def _after(self, found: list[int], pair: Pair) -> Pair:
        room = self._room - self._tokens(pair.prompt)
        profile = self._cut(f"{self._profile}\n", room) if self._profile else ""
        room -= self._tokens(profile)
        kept = list(found)
        while kept and (history := self._history(kept, room)) is None:
            kept.pop()
        self.asked += len(found)
        self.left_out += len(found) - len(kept)
        return PersonalPair(f"{profile}{history if kept else ''}{pair.prompt}", pair.completion, profile)

    def _history(self, found: list[int], room: int) -> str | None:
        """These items' examples, their texts as long as fits; None where they do not fit at their shortest."""

        def worded(words: int) -> str:
            lines = (example(self._task, self._user.profile[i], source_words=words) for i in found)
            return "\n".join(lines) + "\n\n"

        low, high = SHORTEST - 1, EXAMPLE_WORDS + 1  # the longest that fits lies between them
        words = EXAMPLE_WORDS
        while low + 1 < high:
            low, high = (words, high) if self._tokens(worded(words)) <= room else (low, words)
            words = (low + high) // 2
        return worded(low) if low >= SHORTEST else None

    def _cut(self, profile: str, room: int) -> str:
        """The profile's first words that fit, and its line break; nothing where no word does."""
        words = profile.rstrip("\n").split(" ")
        while words and self._tokens(" ".join(words) + "\n") > room:
            words.pop()
        return " ".join(words) + "\n" if words else ""

    def _tokens(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])
