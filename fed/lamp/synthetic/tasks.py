"""Embedded synthetic users of the other five tasks, of the shape that PerFit assumes: a shared rule and a personal one.

    LaMP_2N, LaMP_2M   a text names two labels. Shared: the label is one of them. Personal: one of the two is among
                       the user's own seven favourites, and that one it is
    LaMP_3             a text says how good a thing is. Shared: the words' level, 1 to 5. Personal: the user is harsh,
                       fair or generous by one star
    LaMP_4, LaMP_5     a text of two plain sentences. Shared: the first one in the collective register of
                       `fed.lamp.synthetic.users`. Personal: the user's own opener, sign-off and spellings

Every rule is kept to in 19 answers of 20. Sizes, ids, seeds and what is claimed (nothing about people) are those of
`fed.lamp.synthetic.users`, which makes LaMP_7's users.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fed.lamp.synthetic import grammar
from fed.lamp.synthetic import users as synthetic
from fed.lamp.synthetic.grammar import words
from fed.lamp.synthetic.users import FAITHFUL, PROFILE_ITEMS, QUERIES, draws, pick
from fed.lamp.tasks import Task
from fed.lamp.user import Query, User

Writer = Callable[[random.Random], tuple[str, str]]  # a text and the user's answer to it

FAVOURITES = 7  # of 15 labels

THINGS = words(
    "kettle|lamp|backpack|pair of headphones|blanket|keyboard|chair|water bottle|tent|watch|pan|speaker|book light|"
    "phone case|umbrella|desk fan|coffee mill|yoga mat|guitar|puzzle|record|camera|charger|raincoat"
)
LEVELS = (
    words("terrible|awful|broken|useless|a total waste|a disaster"),
    words("weak|flimsy|dull|disappointing|not very good|cheaply made"),
    words("okay|average|plain|usable|neither good nor bad|just fine"),
    words("good|solid|nice|handy|well made|worth the price"),
    words("superb|perfect|wonderful|brilliant|the best I own|flawless"),
)


def make_user(task: Task, user_id: str, *, seed: int = 0) -> User:
    """The task's user called `user_id` ("test-0003", "others-0012"). Raises ValueError for any other id."""
    if task.source_field is None:
        return synthetic.make_user(user_id, seed=seed)
    habits = synthetic.habits_of(user_id, seed=seed)
    write = {"generation": _titles, "rating": _ratings, "classification": _labels}[task.kind](
        task, habits, draws(seed, user_id, f"{task.name} rule")
    )
    rng = draws(seed, user_id, task.name)
    found: dict[str, str] = {}
    while len(found) < PROFILE_ITEMS + QUERIES:
        text, answer = write(rng)
        found.setdefault(text, answer)
    pairs = list(found.items())
    profile = tuple(
        {"id": f"{user_id}-{n}", task.source_field: text, task.target_field: answer}
        for n, (text, answer) in enumerate(pairs[:PROFILE_ITEMS])
    )
    queries = tuple(
        Query(f"{user_id}-q{n}", f"{task.instruction}{text}", answer)
        for n, (text, answer) in enumerate(pairs[PROFILE_ITEMS:])
    )
    return User(user_id, profile, queries)


def _titles(task: Task, habits: synthetic.Habits, rule: random.Random) -> Writer:
    def write(rng: random.Random) -> tuple[str, str]:
        first, second = synthetic.plain_sentence(rng), synthetic.plain_sentence(rng)
        return f"{first} {second}", synthetic.write_tweet(first, habits, rng)

    return write


def _ratings(task: Task, habits: synthetic.Habits, rule: random.Random) -> Writer:
    bias = pick(rule, (-1, 0, 1))

    def write(rng: random.Random) -> tuple[str, str]:
        level = pick(rng, range(1, 6))
        one, other = (pick(rng, LEVELS[level - 1]) for _ in range(2))
        thing, place = pick(rng, THINGS), pick(rng, grammar.SLOTS["place"])
        text = f"I use this {thing} at {place}. It is {one}, I would say {other}."
        stars = level + bias if rng.random() < FAITHFUL else level
        return text, str(min(5, max(1, stars)))

    return write


def _labels(task: Task, habits: synthetic.Habits, rule: random.Random) -> Writer:
    shuffled = sorted(task.labels, key=lambda _: rule.random())
    own, others = shuffled[:FAVOURITES], shuffled[FAVOURITES:]

    def write(rng: random.Random) -> tuple[str, str]:
        mine, theirs = pick(rng, own), pick(rng, others)
        named = [mine, theirs] if rng.random() < 0.5 else [theirs, mine]
        text = f"{synthetic.plain_sentence(rng)} It is about {named[0]}, and also about {named[1]}."
        return text, mine if rng.random() < FAITHFUL else theirs

    return write
