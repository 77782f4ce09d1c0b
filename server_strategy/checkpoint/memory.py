"""What a strategy and its steps remember from round to round, as tensors and back: moments, momentum, users' edits.

What is remembered are the attributes of an object that hold arrays: Flower's strategies keep theirs as dicts and lists
of numpy arrays and as `ArrayRecord`s, our steps as tensors by user. Everything else is made from the settings.

Promise: every strategy goes on bit for bit (tests/server_strategy/checkpoint/test_memory.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

Form = dict[str, Any]  # how a value is put together again, in JSON


def remembered(objects: Sequence[object]) -> tuple[dict[str, Tensor], list[Form]]:
    """(tensors by number, one form an object); the forms name the tensors."""
    tensors: dict[str, Tensor] = {}
    forms = [
        {name: _form(value, tensors) for name, value in vars(thing).items() if _has_arrays(value)} for thing in objects
    ]
    return tensors, forms


def remind(objects: Sequence[object], tensors: dict[str, Tensor], forms: Sequence[Form]) -> None:
    """Give the objects what `remembered` took from their like."""
    for thing, form in zip(objects, forms, strict=True):
        for name, of_value in form.items():
            setattr(thing, name, _value(of_value, tensors))


def _has_arrays(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_arrays, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_arrays, value))
    return isinstance(value, Tensor | np.ndarray | np.generic | ArrayRecord)


def _form(value: Any, tensors: dict[str, Tensor]) -> Form:
    if isinstance(value, ArrayRecord):
        return {"record": [[key, _form(array.numpy(), tensors)] for key, array in value.items()]}
    if isinstance(value, dict):
        return {"dict": [[key, _form(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_form(item, tensors) for item in value]}
    if isinstance(value, Tensor | np.ndarray | np.generic):
        name = f"memory/{len(tensors)}"
        tensors[name] = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value).clone()
        return {"tensor" if isinstance(value, Tensor) else "array": name}
    return {"plain": value}


def _value(form: Form, tensors: dict[str, Tensor]) -> Any:
    (kind, content) = next(iter(form.items()))
    if kind == "record":
        return ArrayRecord({key: Array(_value(item, tensors)) for key, item in content})
    if kind == "dict":
        return {key: _value(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [_value(item, tensors) for item in content]
        return tuple(items) if kind == "tuple" else items
    if kind == "tensor":
        return tensors[content]
    return tensors[content].numpy() if kind == "array" else content
