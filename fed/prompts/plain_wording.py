"""Plain wordings of tweets: what a history without inputs is asked for, written by the base model itself.

    history item   y                             the tweet, of LaMP_7's bare histories
    request        "{REQUEST}\\nTweet: {y}\\nPlain sentence:"
    wording        x = the base's greedy answer, its first line
    row            (x, y) in the very form of a query and its gold (`fed.lamp.tasks.Task.history_pair`)

As StyleVector's style-free answers (Zhang et al., 2025), turned round: there the base answers an input in no style,
here it takes the style out of an answer. A history item that brings an input keeps it. A wording that is empty, holds
no letter or digit, or repeats the tweet teaches nothing: its row stays the bare one.

The wordings are made of the user's own texts and stay where they are: in the user's folder of the vault, sealed as it
is and erased with it. Each is kept by its item's id and text, so a history that has grown is asked for the new items
alone. Who learns from which items is still decided by the data alone (`fed.lamp.cohorts`).

Promise: no message carries a wording (`test_no_plain_wording_of_a_tweet_crosses`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.base.model import BaseModel
from fed.edits.stack import BARE
from fed.forward.batching import Row
from fed.lamp.tasks import INPUT_FIELD, Task, cut_words
from fed.lamp.user import User
from fed.privacy.vault import Vault
from fed.prompts.wording import PROFILE_WORDS, request_tokens

REQUEST = (
    "Rewrite this tweet as one plain sentence of ordinary English that says the same, without hashtags, emoji, slang "
    "or any style. Write the sentence alone."
)
NAME = "plain"  # in the vault

Item = Mapping[str, str]


class PlainWordings:
    """The plain wordings of the users of one node.

    Args:
        vault: where they are kept.
        base: who writes them.
        task: whose rows they are for; of a task with inputs nothing is written.
        latest: how many items of a history are worded, the last; 0: all.
        token_budget: padded tokens of one batch of requests.
    """

    def __init__(self, vault: Vault, base: BaseModel, task: Task, *, latest: int, token_budget: int) -> None:
        self._vault, self._base, self._task = vault, base, task
        self._latest, self._token_budget = latest, token_budget

    def read(self, user: User) -> User | None:
        """The user, its bare items with their wordings as inputs; None where one is yet to be written."""
        bare = self._bare(user)
        texts = self._texts(user.user_id) if bare else {}
        if any(_key(item) not in texts for item in bare):
            return None
        inputs = {_key(item): texts[_key(item)] for item in bare}
        return replace(user, profile=tuple(_with_input(item, inputs.get(_key(item), "")) for item in user.profile))

    def write(self, users: Sequence[User], on_rows: Callable[[int, int], None] | None = None) -> tuple[int, int]:
        """Write and keep what is missing of these users' wordings, in shared batches.

        Args:
            users: whose.
            on_rows: called with a number of wordings as they finish, and how many there will be.
        Returns:
            how many were written, and how many of these are of no use.
        """
        # What is missing, and the requests that fit into the base's context.
        users = [user for user in users if self._bare(user)]
        kept = [self._texts(user.user_id) for user in users]
        missing = [
            (texts, item)
            for user, texts in zip(users, kept, strict=True)
            for item in self._bare(user)
            if _key(item) not in texts
        ]
        prompts = [request_tokens(self._base.tokenizer, self._request(item)) for _, item in missing]
        room = (self._base.context or self._token_budget) - self._new_tokens
        fitting = [i for i, prompt in enumerate(prompts) if len(prompt) <= room]
        # The answers, in batches that users share.
        answers = generate(
            self._base,
            [EditedRow(Row(prompts[i], ())) for i in fitting],
            BARE,
            Decoding(self._new_tokens),
            token_budget=self._token_budget,
            stop="\n",
            on_rows=(lambda count: on_rows(count, len(fitting))) if on_rows else None,
        )
        # Each beside its item, "" where it is of no use; those of items that the history no longer has go.
        for texts, item in missing:
            texts[_key(item)] = ""
        for i, answer in zip(fitting, answers, strict=True):
            texts, item = missing[i]
            texts[_key(item)] = usable(answer, item[self._task.target_field])
        for user, texts in zip(users, kept, strict=True):
            self._keep(user, texts)
        return len(missing), sum(not texts[_key(item)] for texts, item in missing)

    @property
    def _new_tokens(self) -> int:
        return self._task.max_new_tokens  # the tweets' own bound

    def _bare(self, user: User) -> list[Item]:
        """The items to word, of those that say nothing of what they answer."""
        return [item for item in user.profile[-self._latest :] if self._task.source_of(item) is None]

    def _request(self, item: Item) -> str:
        return f"{REQUEST}\nTweet: {cut_words(item[self._task.target_field], PROFILE_WORDS)}\nPlain sentence:"

    def _made_by(self) -> str:
        """What wordings depend on besides their items: others are not read."""
        return hashlib.sha256(repr((self._base.fingerprint, self._new_tokens, REQUEST)).encode()).hexdigest()[:16]

    def _texts(self, user_id: str) -> dict[str, str]:
        """Key of an item to its wording, as far as they are written."""
        entry = self._vault.kept(user_id, NAME)  # (tensors, header)
        if entry is None or entry[1].get("key") != self._made_by():
            return {}
        return dict(json.loads(bytes(entry[0]["texts"].tolist())))

    def _keep(self, user: User, texts: Mapping[str, str]) -> None:
        items = {_key(item) for item in user.profile}
        body = json.dumps({key: text for key, text in texts.items() if key in items}, ensure_ascii=False)
        tensor = torch.tensor(list(body.encode("utf-8")), dtype=torch.uint8)
        self._vault.keep(user.user_id, NAME, {"texts": tensor}, {"key": self._made_by()})


def usable(answer: str, tweet: str) -> str:
    """The answer on one line; "" where it holds no letter or digit, or is the tweet itself but for case and spaces."""
    line = " ".join(answer.split())
    is_copy = line.casefold() == " ".join(tweet.split()).casefold()
    return "" if is_copy or not any(character.isalnum() for character in line) else line


def _with_input(item: Item, text: str) -> Item:
    return {**item, INPUT_FIELD: text} if text else item


def _key(item: Item) -> str:
    """Of an item's id and text."""
    return hashlib.sha256(repr(sorted(item.items())).encode()).hexdigest()[:16]
