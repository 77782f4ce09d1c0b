"""BM25 over one user's history: which past items resemble a text (Okapi; Robertson & Zaragoza, 2009).

    score(q, D) = Σ_t∈q idf(t) · f(t, D) (k1 + 1) / (f(t, D) + k1 (1 − b + b |D| / avgdl))        k1 = 1.5, b = 0.75
    idf(t) = ln(N − n(t) + 0.5) − ln(n(t) + 0.5);  where that is negative: ε · mean idf, ε = 0.25

These are `rank_bm25.BM25Okapi`'s, which LaMP and OPPU use; its ranking, but that of equal scores the later item comes
first (there it is left to an unstable sort). What is compared is OPPU's (`fed.prompts.wording`): tokens by `split(" ")`
of a history line that names its fields, and the task's question before the query's text. LaMP's own `rank_profiles.py`
differs: tokens by any white space, the bare text as query, `{title} {text}` or the bare text as document.

The term frequencies are weighed by `bm25s`. Its idf variants have no floor for negative ones, which short histories are
full of, so the idf here is our own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np

K1, B, EPSILON = 1.5, 0.75, 0.25


class Okapi:
    """An index of documents. Raises ValueError without documents."""

    def __init__(self, documents: Sequence[str]) -> None:
        if not documents:
            raise ValueError("BM25 needs at least one document, got none")
        tokens = [document.split(" ") for document in documents]
        self._count = len(tokens)
        # bm25s's own idf ln((N + 1) / n) is never zero, so that it can be divided out again.
        self._index = _import_bm25s().BM25(
            k1=K1, b=B, method="atire", idf_method="bm25+", dtype="float64", backend="numpy"
        )
        self._index.index(tokens, show_progress=False, create_empty_token=False)
        found = Counter(token for document in tokens for token in set(document))
        N = self._count
        idf = {token: math.log(N - n + 0.5) - math.log(n + 0.5) for token, n in found.items()}
        floor = EPSILON * sum(idf.values()) / len(idf)
        self._weights = {
            token: (value if value >= 0 else floor) / math.log((N + 1) / found[token]) for token, value in idf.items()
        }

    def scores(self, query: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """(documents,) float64; tokens of the query that no document has count for nothing."""
        total = np.zeros(self._count)
        for token, times in Counter(query.split(" ")).items():
            if token in self._weights:
                total += times * self._weights[token] * self._index.get_scores([token])
        return total

    def top(self, query: str, count: int) -> list[int]:
        """The numbers of the `count` best documents, best first; of equal scores the later document first."""
        order = np.argsort(self.scores(query).round(9), kind="stable")[::-1]
        return [int(i) for i in order[:count]]


def _import_bm25s() -> Any:
    try:
        return import_module("bm25s")
    except ImportError as error:
        raise ValueError(f"retrieved needs bm25s, whose import failed ({error}): pip install bm25s") from error
