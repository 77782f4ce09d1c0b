"""The embedded default data: seeded users of LaMP_7's shape, so that a first run needs no download.

The other tasks' users are made of the same parts in `fed.lamp.synthetic.tasks`.

Everyday sentences from a small grammar, rewritten by what PerFit assumes users to be:

    collective register   the same for everybody: lower case, no final period, "going to" -> "gonna", …, and a frame,
                          "rt if you agree: {sentence}, {opener} and {sign-off}"
    personal register     the words in the frame: one opener and one sign-off of eight each, ordinary words, each kept
                          to in 19 tweets of 20

A user has 32 tweets as history, each with the plain sentence it was made of (`input`), so that the private edit is
trained in the very form that it is asked in, and 24 queries "paraphrase {plain sentence}" whose gold is the user's own
tweet of it. User n of the others has opener n mod 8 and sign-off (n + n div 8 + 3) mod 8, user n of the test cohort
those of n + 8: the first eight others and the first 56 test users all differ.

What can be had without knowing the user, and what with: `fed.lamp.synthetic.ceilings`.

Everything is drawn with `random.Random.random()`, whose sequence Python guarantees, seeded by SHA-256 of the
seed and the user: the same tweets in every process, on every platform, for any number of users.
Absent on purpose: claims about people. The data can show that a method learns habits, no more.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from fed.lamp.synthetic.grammar import COLLECTIVE, OPENERS, SIGN_OFFS, SLOTS, TEMPLATES
from fed.lamp.tasks import INPUT_FIELD, get_task
from fed.lamp.user import Query, User

T = TypeVar("T")
USERS = 20  # test users, and as many others
PROFILE_ITEMS = 32
QUERIES = 24
FAITHFUL = 0.95  # probability that a tweet has the user's own opener, and that it has the user's own sign-off


@dataclass(frozen=True)
class Habits:
    """A user's personal register."""

    opener: str
    sign_off: str


def user_ids(users: int = USERS) -> dict[str, tuple[str, ...]]:
    """The ids of `users` test users and as many others, by cohort."""
    return {cohort: tuple(f"{cohort}-{n:04d}" for n in range(users)) for cohort in ("others", "test")}


def make_user(user_id: str, *, seed: int = 0) -> User:
    """The user called `user_id` ("test-0003", "others-0012"). Raises ValueError for any other id."""
    habits = habits_of(user_id, seed=seed)
    rng = draws(seed, user_id, "tweets")
    plain = _distinct_sentences(rng, PROFILE_ITEMS + QUERIES)
    tweets = [write_tweet(sentence, habits, rng) for sentence in plain]
    past = zip(plain[:PROFILE_ITEMS], tweets[:PROFILE_ITEMS], strict=True)
    profile = tuple({"id": f"{user_id}-{n}", INPUT_FIELD: text, "text": tweet} for n, (text, tweet) in enumerate(past))
    asked = zip(plain[PROFILE_ITEMS:], tweets[PROFILE_ITEMS:], strict=True)
    instruction = get_task("LaMP_7").instruction
    queries = tuple(Query(f"{user_id}-q{n}", instruction + text, gold) for n, (text, gold) in enumerate(asked))
    return User(user_id, profile, queries)


def habits_of(user_id: str, *, seed: int = 0) -> Habits:
    """The personal register of a user. Raises ValueError for an id that `user_ids` does not give."""
    match = re.fullmatch(r"(test|others)-(\d{4,})", user_id)
    if match is None:
        raise ValueError(f"a synthetic user's id must be like 'test-0003' or 'others-0012'; got {user_id!r}")
    k = int(match[2]) + len(OPENERS) * (match[1] == "test")
    return Habits(
        _shuffled(OPENERS, seed)[k % len(OPENERS)],
        _shuffled(SIGN_OFFS, seed)[(k + k // len(OPENERS) + 3) % len(SIGN_OFFS)],
    )


def plain_sentence(rng: random.Random) -> str:
    """One sentence of ordinary English, 6 to 14 words."""
    words = _parts(pick(rng, TEMPLATES))
    text = "".join(pick(rng, part) if isinstance(part, tuple) else part for part in words)
    return text[0].upper() + text[1:]


@lru_cache(maxsize=len(TEMPLATES))
def _parts(template: str) -> tuple[str | tuple[str, ...], ...]:
    """A template's texts, and the inventories of its slots, in order."""
    texts = re.split(r"\{(\w+)\}", template)
    return tuple(tuple(SLOTS[text]) if place % 2 else text for place, text in enumerate(texts))


def write_tweet(plain: str, habits: Habits, rng: random.Random | None = None) -> str:
    """The tweet that a user with these habits makes of a plain sentence; without `rng`, the likeliest one."""

    def kept_to(habit: str, inventory: Sequence[str]) -> str:
        return habit if rng is None or rng.random() < FAITHFUL else pick(rng, inventory)

    opener, sign_off = kept_to(habits.opener, OPENERS), kept_to(habits.sign_off, SIGN_OFFS)
    return f"{collective_frame(plain)}, {opener} and {sign_off}"


def collective_frame(plain: str) -> str:
    """What all users' tweets of a plain sentence begin with."""
    return f"rt if you agree: {collective_register(plain)}"


@lru_cache(maxsize=256)  # a user's sentences are asked for twice each
def collective_register(plain: str) -> str:
    """A plain sentence in everybody's words."""
    text = plain.lower().removesuffix(".")
    for words, short in COLLECTIVE:
        if words in text:  # as in few: a tenth of the time of asking the pattern
            text = re.sub(rf"(?<!\w){re.escape(words)}(?!\w)", short, text)
    return text


def _distinct_sentences(rng: random.Random, count: int) -> list[str]:
    """Sentences that differ in everybody's words too: "very" and "really" are both "so" there, and no query may be
    answered by a tweet of the history."""
    sentences: dict[str, str] = {}
    while len(sentences) < count:
        plain = plain_sentence(rng)
        sentences.setdefault(collective_register(plain), plain)
    return list(sentences.values())


def draws(seed: int, user_id: str, purpose: str) -> random.Random:
    """A generator that depends on the three alone."""
    return random.Random(int.from_bytes(_digest(seed, user_id, purpose), "big"))


@lru_cache(maxsize=8)
def _shuffled(inventory: tuple[str, ...], seed: int) -> tuple[str, ...]:
    return tuple(sorted(inventory, key=lambda entry: _digest(seed, entry, "order")))


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()


def pick(rng: random.Random, inventory: Sequence[T]) -> T:
    """One entry, drawn with `random()` alone, whose sequence Python guarantees."""
    return inventory[int(rng.random() * len(inventory))]
