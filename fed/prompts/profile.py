"""A user's profile text, written by the base model itself from the user's history (PAG; Richardson et al., 2023).

As OPPU makes them: ten items of the history, drawn at random, each field cut to 200 words, go into one request
(`fed.prompts.wording`). An instruction-tuned base gets it in its own chat format; the answer is decoded greedily. It is
made of the user's own texts and stays where they are: in the user's folder of the vault, mode 0600, written once a run
and read by every later message. No message carries it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch

from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.base.model import BaseModel
from fed.edits.stack import BARE
from fed.forward.batching import Row
from fed.lamp.tasks import Task
from fed.lamp.user import User
from fed.privacy.vault import Vault
from fed.prompts.wording import profile_request, request_tokens
from fed.randomness import generator

ITEMS = 10  # OPPU's --k
NEW_TOKENS = 96  # OPPU lets a 7B model write 200; a longer text leaves a short row no room
MAX_TOKENS = 2048  # OPPU's cut-off, or the base's own context where that is shorter
NAME = "profile"  # in the vault


class Profiles:
    """The profiles of the users of one node."""

    def __init__(self, vault: Vault, base: BaseModel, task: Task, *, seed: int, token_budget: int) -> None:
        self._vault, self._base, self._task = vault, base, task
        self._seed, self._token_budget = seed, token_budget

    def read(self, user: User) -> str | None:
        """The text, or None where none is kept that this base wrote from this request."""
        kept = self._vault.kept(user.user_id, NAME)
        if kept is None or kept[1].get("key") != self._key(self._prompt(user)):
            return None
        return kept_text(self._vault, user.user_id)

    def write(self, users: Sequence[User], on_rows: Callable[[int], None] | None = None) -> None:
        """Write and keep the profiles of these users, in shared batches."""
        prompts = [self._prompt(user) for user in users]
        asked = [i for i, prompt in enumerate(prompts) if prompt]
        texts = [""] * len(users)
        answers = generate(
            self._base,
            [EditedRow(Row(prompts[i], ())) for i in asked],
            BARE,
            Decoding(NEW_TOKENS),
            token_budget=max(self._token_budget, MAX_TOKENS),
            on_rows=on_rows,
        )
        for i, answer in zip(asked, answers, strict=True):
            texts[i] = " ".join(answer.split())  # one line: a line break ends the profile in a prompt
        for user, prompt, text in zip(users, prompts, texts, strict=True):
            body = torch.tensor(list(text.encode("utf-8")), dtype=torch.uint8)
            self._vault.keep(user.user_id, NAME, {"text": body}, {"key": self._key(prompt)})

    def _key(self, prompt: tuple[int, ...]) -> str:
        return hashlib.sha256(repr((self._base.fingerprint, NEW_TOKENS, prompt)).encode()).hexdigest()[:16]

    def _prompt(self, user: User) -> tuple[int, ...]:
        """The request's tokens with as many of the drawn items as fit; empty where not one does."""
        draw = generator(self._seed, "profile", user.user_id)
        drawn = torch.randperm(len(user.profile), generator=draw)[:ITEMS].tolist()
        room = min(self._base.context or MAX_TOKENS, MAX_TOKENS) - NEW_TOKENS
        while drawn:
            request = profile_request(self._task, [user.profile[i] for i in sorted(drawn)])
            ids = request_tokens(self._base.tokenizer, request)
            if len(ids) <= room:
                return ids
            drawn.pop()
        return ()


def kept_text(vault: Vault, user_id: str) -> str | None:
    """The profile text that a vault keeps of a user, whatever it was written from; None where it keeps none."""
    kept = vault.kept(user_id, NAME)
    return None if kept is None else bytes(kept[0]["text"].tolist()).decode("utf-8")
