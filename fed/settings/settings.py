"""The run's settings: Flower's flat run config, parsed once into a frozen dataclass and checked by rule.

Keys are those of `[tool.flwr.app.config]` in sims/*/pyproject.toml; their rules stand beside them in
`fed.settings.groups`, and those that concern several keys stand here. An error names the key, the rule and the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

from fed.lamp.tasks import TASKS
from fed.settings.groups import AVERAGING_STRATEGIES, GROUPS, Answers, Base, Data, Edits, Federation, Training
from fed.settings.methods import METHODS
from fed.settings.rules import SettingsError, checked, key_of

# Values of earlier releases, in vaults and finished cells, whose numbers today's value gives bit for bit.
RENAMED = {"engine": {"sequential": "batched"}}


@dataclass(frozen=True, kw_only=True)
class Settings(Data, Base, Edits, Training, Federation, Answers):
    """One run; `settings.stage1_rank` is the key `stage1-rank`."""

    @property
    def stage1_rounds(self) -> int:
        """How often stage 1 trains and hands on: in its rounds, or once where it is pooled."""
        return 1 if self.stage1 == "pooled" else self.rounds

    @property
    def stage1_epochs(self) -> int:
        """Epochs of each of these trainings; rounds × local-epochs in all, pooled or not."""
        return self.local_epochs * self.rounds // self.stage1_rounds

    @classmethod
    def parse(cls, config: Mapping[str, object]) -> Settings:
        """Check a flat run config. Raises SettingsError at the first key that breaks a rule."""
        known = keys()
        for key in config:
            if key not in known:
                raise SettingsError(f"run config has no key {key!r}; known keys: {', '.join(sorted(known))}")
        config = {key: RENAMED.get(key, {}).get(str(value), value) for key, value in config.items()}
        # What is given, or has a default, under its own rule
        values: dict[str, object] = {}
        for key, one in known.items():
            if key in config:
                values[one.name] = checked(one, config[key])
            elif one.default is MISSING:
                raise SettingsError(f"run config lacks the key {key!r}")
        # What the method implies where it is left at 0 or false
        for key, value in METHODS[str(values["method"])].implies.items():
            values[known[key].name] = values.get(known[key].name) or value
        # Rules of several keys
        settings = cls(**values)  # type: ignore[arg-type]
        for rule in (method_honours_its_keys, choice_has_labels, average_fits_the_strategy):
            rule(settings)
        return settings

    def as_config(self) -> dict[str, object]:
        """The flat run config again, by key."""
        return {key: getattr(self, one.name) for key, one in keys().items()}

    def as_json(self) -> str:
        return json.dumps(self.as_config(), sort_keys=True)


def keys() -> dict[str, Field[Any]]:
    """Every run-config key, group by group, and its field."""
    return {key_of(one.name): one for group in GROUPS for one in fields(group)}


def method_honours_its_keys(settings: Settings) -> None:
    """A method that can do only some of a key's values gets one of these (`fed.settings.methods`)."""
    for key, allowed in METHODS[settings.method].only.items():
        value = settings.as_config()[key]
        if value not in allowed:
            fix = " or ".join(allowed)
            raise SettingsError(
                f"method {settings.method!r} cannot honour {key}={value!r}; {key} must be {fix} with it"
            )


def choice_has_labels(settings: Settings) -> None:
    """A choice needs labels to choose from."""
    if settings.answer == "choice" and settings.task in TASKS and not TASKS[settings.task].labels:
        having = ", ".join(name for name, task in TASKS.items() if task.labels)
        raise SettingsError(f"answer='choice' needs a task with labels ({having}), got {settings.task}; use 'decode'")


def average_fits_the_strategy(settings: Settings) -> None:
    """A strategy that compares replies needs entries that mean the same in all of them."""
    if settings.average != "fedavg" and settings.strategy not in AVERAGING_STRATEGIES:
        raise SettingsError(
            f"strategy {settings.strategy!r} compares replies entry by entry, so it needs average='fedavg', "
            f"got average={settings.average!r}"
        )
