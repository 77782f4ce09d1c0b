"""The embedded default data: seeded users of LaMP_7's shape, so that a first run needs no download.

The other tasks' users are made of the same parts in `fed.lamp.synthetic.tasks`.

Everyday sentences from a small grammar, rewritten by what PerFit assumes users to be:

    collective register   the same for everybody: lower case, no final period, "going to" -> "gonna", ...
    personal register     one main opener ("omg", "honestly"), one main sign-off ("lol", "#blessed") and own
                          spellings of frequent words ("really" -> "hella", "friend" -> "bestie"), each kept
                          to in 19 tweets of 20

A user has 28 tweets as history and 12 queries "paraphrase {plain sentence}" whose gold is the user's own
tweet of it. User k has opener k mod 48 and sign-off (k + k div 48) mod 48, so the first 2,304 users have
different habits.

Mean ROUGE-L against the golds (`python -m fed.lamp.synthetic.users`: seed 0, 20 test users, 240 golds) of

    the plain sentence itself                          0.506    what a copying model gets
    the sentence in the collective register            0.683    what stage 1 can learn
    the sentence as the user most likely writes it     0.979    what stage 2 can learn, and no more

Everything is drawn with `random.Random.random()`, whose sequence Python guarantees, seeded by SHA-256 of the
seed and the user: the same tweets in every process, on every platform, for any number of users.
Absent on purpose: claims about people. The data can show that a method learns habits, no more.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from fed.lamp.synthetic.grammar import COLLECTIVE, OPENERS, SIGN_OFFS, SLOTS, SPELLINGS, TEMPLATES
from fed.lamp.tasks import get_task
from fed.lamp.user import Query, User

T = TypeVar("T")
USERS = 20  # test users, and as many others
PROFILE_ITEMS = 28
QUERIES = 12
FAITHFUL = 0.95  # probability that a tweet has the main opener, the main sign-off, an own spelling


@dataclass(frozen=True)
class Habits:
    """A user's personal register: a main opener and an exception, likewise sign-offs, and own spellings."""

    openers: tuple[str, str]
    sign_offs: tuple[str, str]
    spellings: dict[str, str]


def user_ids(users: int = USERS) -> dict[str, tuple[str, ...]]:
    """The ids of `users` test users and as many others, by cohort."""
    return {cohort: tuple(f"{cohort}-{n:04d}" for n in range(users)) for cohort in ("others", "test")}


def make_user(user_id: str, *, seed: int = 0) -> User:
    """The user called `user_id` ("test-0003", "others-0012"). Raises ValueError for any other id."""
    habits = habits_of(user_id, seed=seed)
    rng = draws(seed, user_id, "tweets")
    plain = _distinct_sentences(rng, PROFILE_ITEMS + QUERIES)
    tweets = [write_tweet(sentence, habits, rng) for sentence in plain]
    profile = tuple({"id": f"{user_id}-{n}", "text": tweet} for n, tweet in enumerate(tweets[:PROFILE_ITEMS]))
    asked = zip(plain[PROFILE_ITEMS:], tweets[PROFILE_ITEMS:], strict=True)
    instruction = get_task("LaMP_7").instruction
    queries = tuple(Query(f"{user_id}-q{n}", instruction + text, gold) for n, (text, gold) in enumerate(asked))
    return User(user_id, profile, queries)


def habits_of(user_id: str, *, seed: int = 0) -> Habits:
    """The personal register of a user. Raises ValueError for an id that `user_ids` does not give."""
    match = re.fullmatch(r"(test|others)-(\d{4,})", user_id)
    if match is None:
        raise ValueError(f"a synthetic user's id must be like 'test-0003' or 'others-0012'; got {user_id!r}")
    k = 2 * int(match[2]) + (match[1] == "others")
    rng = draws(seed, user_id, "habits")
    spellings = {word: pick(rng, variants) for word, variants in SPELLINGS.items()}
    return Habits(
        _main_and_exception(rng, _shuffled(OPENERS, seed), k),
        _main_and_exception(rng, _shuffled(SIGN_OFFS, seed), k + k // len(OPENERS)),
        spellings,
    )


def plain_sentence(rng: random.Random) -> str:
    """One sentence of ordinary English, 6 to 14 words."""
    text = re.sub(r"\{(\w+)\}", lambda slot: pick(rng, SLOTS[slot[1]]), pick(rng, TEMPLATES))
    return text[0].upper() + text[1:]


def write_tweet(plain: str, habits: Habits, rng: random.Random | None = None) -> str:
    """The tweet that a user with these habits makes of a plain sentence; without `rng`, the likeliest one."""

    def faithful() -> bool:
        return rng is None or rng.random() < FAITHFUL

    text = collective_register(plain)
    for word, spelling in habits.spellings.items():
        if faithful():
            text = _replace(text, word, spelling)
    opener = habits.openers[0 if faithful() else 1]
    sign_off = habits.sign_offs[0 if faithful() else 1]
    return f"{opener} {text} {sign_off}"


def collective_register(plain: str) -> str:
    """What everybody's tweets have in common."""
    text = plain.lower().removesuffix(".")
    for words, short in COLLECTIVE:
        text = _replace(text, words, short)
    return text


def _replace(text: str, words: str, by: str) -> str:
    if words not in text:  # as of most: a tenth of the time of asking the pattern
        return text
    return re.sub(rf"(?<!\w){re.escape(words)}(?!\w)", lambda _: by, text)


def _distinct_sentences(rng: random.Random, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found.setdefault(plain_sentence(rng))
    return list(found)


def _main_and_exception(rng: random.Random, ordered: Sequence[str], k: int) -> tuple[str, str]:
    main = ordered[k % len(ordered)]
    return main, pick(rng, [other for other in ordered if other != main])


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


def _ceilings(users: int, seed: int) -> Iterator[tuple[str, dict[str, float]]]:
    """What ROUGE gives to answers that know ever more of a user, over the test users' golds."""
    from fed.lamp import metrics

    task = get_task("LaMP_7")
    asked = [(one, query) for one in user_ids(users)["test"] for query in make_user(one, seed=seed).queries]
    golds = [query.gold for _, query in asked]
    plain = [task.query_text(query) for _, query in asked]
    shared = [collective_register(text) for text in plain]
    own = [write_tweet(text, habits_of(one, seed=seed)) for text, (one, _) in zip(plain, asked, strict=True)]
    named = {"the plain sentence": plain, "in the collective register": shared, "with the user's habits": own}
    for name, answers in named.items():
        yield name, metrics.scores(task, metrics.statistics(task, golds, answers))


def main(users: int = USERS, seed: int = 0) -> None:
    """Print two users' samples and how much of the golds can be had without knowing the user."""
    for user_id in ("test-0000", "test-0001"):
        user = make_user(user_id, seed=seed)
        print(f"{user_id}: {len(user.profile)} tweets, {len(user.queries)} queries")
        for item in user.profile[:4]:
            print(f"  tweet: {item['text']}")
        for query in user.queries[:2]:
            print(f"  query: {query.input}\n   gold: {query.gold}")
    print(f"ROUGE against the golds of {users} test users, seed {seed}")
    for name, rouge in _ceilings(users, seed):
        print(f"  {name:<30} ROUGE-1 {rouge['rouge1']:.3f}  ROUGE-L {rouge['rougeL']:.3f}")


if __name__ == "__main__":
    main()
