"""Who is near to the collective shift and who is far from it (PerFit, Figures 4 to 7), and how users write.

    distanceᵢ = ‖vᵢ − v̄‖        cosineᵢ = ⟨vᵢ, v̄₋ᵢ⟩ / (‖vᵢ‖ ‖v̄₋ᵢ‖),  v̄₋ᵢ the mean of the others

The distance to the mean of the others is U / (U − 1) times that to the mean of all, so the order is the same.

Measures of style are of what the user wrote, the answers of the history: words a text, characters a word, punctuation
marks and capitals a hundred characters, and the type-token ratio in windows of 50 words, for that of a whole text falls
with its length.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from fed.exploration.collective_shift import cosine
from fed.exploration.spectrum import Array
from fed.statistics import holm
from fed.statistics.rank_correlation import spearman

WINDOW = 50
STYLES = ("words", "word_length", "punctuation", "capitals", "type_token")


def distances(vectors: Array) -> Array:
    """(U,) of each user from the mean."""
    return np.asarray(np.linalg.norm(vectors - vectors.mean(0), axis=1))


def cosines(vectors: Array) -> Array:
    """(U,) of each user with the mean of the others. At least two users."""
    whole = vectors.sum(0)
    return np.array([cosine(v, whole - v) for v in vectors])


def placed(distance: Array, count: int) -> dict[str, list[int]]:
    """`nearest`, `midway` and `farthest` -> so many places each, in order of distance; fewer where users are few."""
    order = np.argsort(distance, kind="stable").tolist()
    count = max(1, min(count, len(order) // 3))
    middle = (len(order) - count) // 2
    return {"nearest": order[:count], "midway": order[middle : middle + count], "farthest": order[-count:]}


def style(texts: Sequence[str]) -> dict[str, float]:
    """The measures named in `STYLES`, of a user's texts taken together; zeros where no text has a word."""
    words = [word for text in texts for word in re.findall(r"\w+(?:['’]\w+)*", text.lower())]
    letters = "".join("".join(text.split()) for text in texts)
    if not words:
        return dict.fromkeys(STYLES, 0.0)
    marks = sum(unicodedata.category(letter).startswith("P") for letter in letters)
    windows = [words[i : i + WINDOW] for i in range(0, max(1, len(words) - WINDOW + 1), WINDOW)]
    return {
        "words": len(words) / len(texts),
        "word_length": sum(map(len, words)) / len(words),
        "punctuation": 100 * marks / len(letters),
        "capitals": 100 * sum(letter.isupper() for letter in letters) / len(letters),
        "type_token": float(np.mean([len(set(window)) / len(window) for window in windows])),
    }


def style_against(
    distance: Array, styles: Sequence[Mapping[str, float]], *, seed: int = 0
) -> dict[str, dict[str, float | None]]:
    """measure -> Spearman's rho with the distance, its p, and that corrected over the measures; None where unknown."""
    found = {name: spearman(distance, np.array([of_user[name] for of_user in styles]), seed=seed) for name in styles[0]}
    family = holm.corrected([pair and pair[1] for pair in found.values()])
    return {
        name: {"rho": pair and pair[0], "p_raw": pair and pair[1], "p": p}
        for (name, pair), p in zip(found.items(), family, strict=True)
    }
