"""The rules that a run-config key obeys."""

from __future__ import annotations

import math


class SettingsError(ValueError):
    """A run-config key is unknown, missing, or breaks its rule."""


def typed(key: str, value: object, kind: str) -> object:
    if kind == "str" and isinstance(value, str) and value:
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind == "float" and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise SettingsError(f"{key} must be a finite number, got {value}")
        return float(value)
    words = {"str": "a text that is not empty", "int": "a whole number", "float": "a number", "bool": "true or false"}
    raise SettingsError(f"{key} must be {words[kind]}, got {value!r}")
