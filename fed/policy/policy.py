"""The rules of one device, which its owner writes in a TOML file and no server can change.

    tasks = ["LaMP_7"]                    # a key that is left out keeps the strict default
    methods = ["perfit", "reft-cp"]
    min-rows = 8                          # losses, scores and edits over fewer rows do not leave
    [ranges]
    max-items = [8, 4096, 4]              # from, to, in steps of; 0, where it means all, is accepted too

Devices are strict by default; a simulation, whose users are made up or the operator's own, is open: `open = true`
accepts every run and lets exact figures out. `clients/PRIVACY.md` says what each rule is for.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fed.lamp.tasks import TASKS
from fed.settings.groups import PROMPT_FORMATS

ZERO_IS_ALL = frozenset({"max-items", "max-queries"})
PROMPTS = ("plain", "retrieved", "profile", "pairs")


class PolicyError(ValueError):
    """A message breaks one of the device's rules, or the rules themselves cannot be read.

    Attributes:
        public: the rule without the value, for the server's eyes.
    """

    def __init__(self, rule: str, got: str = "") -> None:
        super().__init__(f"policy: {rule}{got and f'; got {got}'}")
        self.public = f"policy: {rule}"


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, in steps from `low` where `step` is not 0."""

    low: float
    high: float
    step: float = 0

    def has(self, value: float) -> bool:
        """Whether the number is one of them."""
        if not (math.isfinite(value) and self.low <= value <= self.high):
            return False
        return not self.step or (value - self.low) % self.step == 0

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}" + (f" in steps of {self.step:g}" if self.step else "")


# Wide enough for every settings file in sims/ that asks devices for 8 queries or all. Steps keep the difference of two
# runs from being one row or one token: any two sets of latest items differ by 4 rows or more.
RANGES: Mapping[str, Range] = MappingProxyType(
    {
        "stage1-rank": Range(1, 64),
        "stage2-rank": Range(1, 64),
        "layers": Range(1, 64),  # how many blocks are edited
        "rounds": Range(1, 100),
        "local-epochs": Range(1, 10),
        "stage2-epochs": Range(1, 10),
        "batch-size": Range(2, 64),
        "max-length": Range(64, 2048, 32),
        "max-items": Range(8, 4096, 4),
        "max-queries": Range(8, 256, 4),
        "max-new-tokens": Range(0, 512),
        "held-out": Range(0, 256, 4),
        "token-budget": Range(16, 65536),
        "activation-cache": Range(0, 4096),
        "stage1-lr": Range(0, 0.05),
        "stage2-lr": Range(0, 0.05),
        "weight-decay": Range(0, 1),
        "proximal-mu": Range(0, 10),
        "style-strength": Range(0, 2),
    }
)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """One device's rules; the defaults are the strict ones.

    Attributes:
        open: accept every run and send exact figures, whatever stands below.
        tasks, methods, dtypes, wire_dtypes, prompt_formats: the run config's values that are accepted.
        prompts: what rows may look like: plain, or retrieved items, a profile, plain wordings (pairs) in them.
        bases: fingerprints of the base models that are accepted; empty: whatever the device itself names.
        data: whether the run's `data` may be read where the device has no history of its own.
        hub: whether a base model may be fetched from a hub.
        run_base: whether the run may name the base model, where the node config does not; "embedded" it always may.
        ranges: run-config key -> the numbers that are accepted; a key that is not in it may be any.
        orthonormal: how far an entry of R R^T may be from the identity's.
        shift: the most of |W - R| in the spectral norm: by how much an edit may change a state of the base's own size.
        bias: the most of |b|, as a share of the base's median hidden-state norm at that block.
        rank_share: the most of an edit's rank, as a share of the hidden size.
        entry: the largest entry of a collective tensor that is no LoReFT edit's.
        messages_a_day, messages_an_hour: how many are accepted in any 24 hours, in any hour.
        min_rows: rows or queries that a loss, a score or a federated edit must be made of.
        most_rows: a larger count leaves as this number.
        losses, scores: whether they leave at all.
        loss_step, score_step: what mean losses (nats) and mean scores are rounded to; 0: exact.
    """

    open: bool = False
    tasks: tuple[str, ...] = tuple(TASKS)
    methods: tuple[str, ...] = (
        *("perfit", "perfit-stage1", "reft-p", "reft-cp", "fedreft"),
        *("stylevector", "non-personalized", "rag", "pag"),
    )
    dtypes: tuple[str, ...] = ("auto", "float32", "bfloat16", "float16")
    wire_dtypes: tuple[str, ...] = ("float32", "float16", "bfloat16", "int8", "int4")
    prompt_formats: tuple[str, ...] = PROMPT_FORMATS
    prompts: tuple[str, ...] = PROMPTS
    bases: tuple[str, ...] = ()
    data: bool = False
    hub: bool = False
    run_base: bool = False
    ranges: Mapping[str, Range] = field(default_factory=lambda: RANGES)
    orthonormal: float = 0.05
    shift: float = 4.0
    bias: float = 0.25
    rank_share: float = 0.125
    entry: float = 8.0
    messages_a_day: int = 80
    messages_an_hour: int = 40
    min_rows: int = 8
    most_rows: int = 4096
    losses: bool = True
    scores: bool = True
    loss_step: float = 0.05
    score_step: float = 0.05

    @classmethod
    def read(cls, path: Path) -> Policy:
        """The rules of a TOML file over the strict defaults. Raises PolicyError for a key or value that is none."""
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PolicyError("its file must be readable", f"{str(path)!r} ({error.strerror})") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PolicyError("its file must be TOML", f"{str(path)!r} ({error})") from None
        return cls.of(table)

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Policy:
        """The rules of a parsed file; keys are the attributes with `-` for `_`. Raises PolicyError."""
        defaults = cls()
        known = {one.name.replace("_", "-"): one.name for one in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in table.items():
            if key not in known:
                raise PolicyError(f"every key must be one of {', '.join(sorted(known))}", repr(key))
            values[known[key]] = _checked(key, value, getattr(defaults, known[key]))
        return replace(defaults, **values)


STRICT, OPEN = Policy(), Policy(open=True)


def _checked(key: str, value: Any, default: Any) -> Any:
    """A value of its default's type. Raises PolicyError by its key."""
    if key == "ranges":
        if not isinstance(value, dict):
            raise PolicyError("ranges must be a table, run-config key = [from, to] or [from, to, step]", repr(value))
        return MappingProxyType({**RANGES, **{name: _range(name, numbers) for name, numbers in value.items()}})
    if isinstance(default, bool):
        if not isinstance(value, bool):
            raise PolicyError(f"{key} must be true or false", repr(value))
    elif isinstance(default, tuple):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise PolicyError(f"{key} must be a list of texts", repr(value))
        return tuple(value)
    elif not _is_number(value) or value < 0 or (isinstance(default, int) and not isinstance(value, int)):
        raise PolicyError(f"{key} must be a {'whole ' if isinstance(default, int) else ''}number from 0", repr(value))
    return value


def _range(name: str, numbers: Any) -> Range:
    if name not in RANGES:
        raise PolicyError(f"a range must be of one of {', '.join(sorted(RANGES))}", repr(name))
    if not isinstance(numbers, list) or len(numbers) not in (2, 3) or not all(map(_is_number, numbers)):
        raise PolicyError(f"the range of {name} must be [from, to] or [from, to, step]", repr(numbers))
    return Range(*numbers)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
