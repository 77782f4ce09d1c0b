"""The rules that run-config keys obey; each makes a dataclass field that carries its rule and its meaning.

    rounds: int = at_least(1, "federated rounds of stage 1")

A key without `default` is required. A meaning is what the settings files say beside the key (`sims/write_apps.py`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, field
from typing import Any

from fed.edits.positions import Positions

SAME = "same"  # stage2-layers, stage2-positions: those of stage 1


class SettingsError(ValueError):
    """A run-config key is unknown, missing, or breaks its rule."""


def key_of(name: str) -> str:
    """The run-config key of a field's name."""
    return name.replace("_", "-")


def checked(one: Field[Any], value: object) -> object:
    """The value as its field holds it: of the field's type, a whole number widened. Raises SettingsError by its key."""
    key = key_of(one.name)
    kind = getattr(one.type, "__name__", str(one.type))
    right = "" if value == "" and one.metadata["or_none"] else _typed(key, value, kind)
    one.metadata["rule"](key, right)
    return right


def meaning_of(one: Field[Any]) -> str:
    """What the key of this field says, in one sentence."""
    return str(one.metadata["meaning"])


def text(meaning: str) -> Any:
    """Any text that is not empty."""
    return _field(meaning, MISSING, lambda key, value: None)


def text_or_none(meaning: str) -> Any:
    """Any text; empty, the default, where there is none."""
    return _field(meaning, "", lambda key, value: None, or_none=True)


def flag(meaning: str, *, default: bool) -> Any:
    """true or false."""
    return _field(meaning, default, lambda key, value: None)


def number(meaning: str, *, default: float) -> Any:
    """Any finite number."""
    return _field(meaning, default, lambda key, value: None)


def one_of(allowed: Collection[str], meaning: str, *, default: Any = MISSING) -> Any:
    """One of these texts; a registry's names as they are when a value is checked."""

    def rule(key: str, value: str) -> None:
        if value not in allowed:
            raise SettingsError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")

    return _field(meaning, default, rule)


def at_least(low: float, meaning: str, *, default: Any = MISSING) -> Any:
    """A number from `low` on."""

    def rule(key: str, value: float) -> None:
        if value < low:
            raise SettingsError(f"{key} must be at least {low}, got {value}")

    return _field(meaning, default, rule)


def between(low: float, high: float, meaning: str) -> Any:
    """A number above `low` and below `high`."""

    def rule(key: str, value: float) -> None:
        if not low < value < high:
            raise SettingsError(f"{key} must lie between {low} and {high}, got {value}")

    return _field(meaning, MISSING, rule)


def share(meaning: str, *, default: Any = MISSING, or_none: bool = False) -> Any:
    """A part of a whole: above 0, where `or_none` is false, and 1 at most."""

    def rule(key: str, value: float) -> None:
        if not (0 < value <= 1 or (or_none and value == 0)):
            raise SettingsError(f"{key} must lie in {'[' if or_none else '('}0, 1], got {value}")

    return _field(meaning, default, rule)


def below_one(meaning: str, *, default: float) -> Any:
    """A number from 0 on and below 1."""

    def rule(key: str, value: float) -> None:
        if not 0 <= value < 1:
            raise SettingsError(f"{key} must lie in [0, 1), got {value}")

    return _field(meaning, default, rule)


def block(meaning: str, *, default: int) -> Any:
    """A decoder block's number, or -1."""

    def rule(key: str, value: int) -> None:
        if value < -1:
            raise SettingsError(f"{key} must be a block's number from 0, or -1, got {value}")

    return _field(meaning, default, rule)


def blocks(meaning: str) -> Any:
    """Decoder blocks, as `block_numbers` reads them."""
    return _field(meaning, MISSING, block_numbers)


def private_blocks(meaning: str) -> Any:
    """Decoder blocks of the private edit, as `among` reads them; by default those of stage 1."""
    return _field(meaning, SAME, lambda key, value: among(key, value, ()))


def among(key: str, value: str, collective: tuple[int, ...]) -> tuple[int, ...] | None:
    """The private edit's blocks: "same" as the collective one's, their "lastN", or as `block_numbers` reads them.

    Args:
        collective: the collective edit's blocks.
    Raises:
        SettingsError: none of these.
    """
    if value == SAME:
        return collective
    if last := re.fullmatch(r"last([1-9]\d*)", value):
        return collective[-int(last[1]) :]
    try:
        return block_numbers(key, value)
    except SettingsError as error:
        raise SettingsError(f"{error}; or {SAME}, or last2: those of stage 1, or the last two of them") from None


def block_numbers(key: str, value: str) -> tuple[int, ...] | None:
    """The numbers of a text such as "10,16,22"; None for "all". Raises SettingsError."""
    if value == "all":
        return None
    try:
        numbers = tuple(int(part) for part in value.split(","))
    except ValueError:
        numbers = ()
    if not numbers or sorted(set(numbers)) != list(numbers) or numbers[0] < 0:
        raise SettingsError(f"{key} must be 'all' or rising block numbers from 0 such as '10,16,22', got {value!r}")
    return numbers


def within(key: str, numbers: tuple[int, ...] | None, count: int) -> tuple[int, ...]:
    """These blocks, or all (None), of a base model of so many. Raises SettingsError for one that it has not."""
    if numbers is None:
        return tuple(range(count))
    if numbers[-1] >= count:
        text = ",".join(map(str, numbers))
        raise SettingsError(f"{key} must lie in 0..{count - 1} for this base model, got {text!r}")
    return numbers


def places(meaning: str, *, or_same: bool = False) -> Any:
    """Token positions, by a rule of `fed.edits.positions`; or "same", those of stage 1."""

    def rule(key: str, value: str) -> None:
        if or_same and value == SAME:
            return
        try:
            Positions.parse(value)
        except ValueError as error:
            fix = f"; or {SAME}, those of stage 1" if or_same else ""
            raise SettingsError(f"{key.removesuffix('positions')}{error}{fix}") from error

    return _field(meaning, MISSING, rule)


def _field(meaning: str, default: Any, rule: Callable[[str, Any], object], *, or_none: bool = False) -> Any:
    return field(default=default, metadata={"rule": rule, "meaning": meaning, "or_none": or_none})


def _typed(key: str, value: object, kind: str) -> object:
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
