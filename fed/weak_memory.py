"""Answers that are remembered as long as what they are about: the base model that is let go of takes its own along."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

Owner = TypeVar("Owner")
Rest = ParamSpec("Rest")
Answer = TypeVar("Answer")


def remembered(
    function: Callable[Concatenate[Owner, Rest], Answer],
) -> Callable[Concatenate[Owner, Rest], Answer]:
    """The function, which computes an answer once for its first argument and the others; they must be hashable.

    Where `functools.lru_cache` would keep the first argument alive, this keeps the answers alive with it. An answer
    must not refer to it.

    Promise: nothing that is remembered of a base model or a tokenizer keeps it (tests/fed/test_weak_memory.py).
    """
    of_owners: WeakKeyDictionary[Any, dict[Any, Any]] = WeakKeyDictionary()

    @wraps(function)
    def answer(owner: Owner, /, *args: Rest.args, **kwargs: Rest.kwargs) -> Answer:
        answers = of_owners.setdefault(owner, {})
        key = (args, tuple(sorted(kwargs.items())))
        if key not in answers:
            answers[key] = function(owner, *args, **kwargs)
        return answers[key]

    return answer
