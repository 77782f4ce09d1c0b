"""The run's settings: Flower's flat run config, parsed once into a frozen dataclass and checked by rule.

Keys are those of `[tool.flwr.app.config]` in sims/*/pyproject.toml; their rules stand beside them in
`fed.settings.groups`, and those that concern several keys stand here. An error names the key, the rule and the value.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, dataclass, fields, replace
from difflib import get_close_matches
from typing import Any

from fed.averages.robust import NEEDS, NEEDS_ATTACKERS
from fed.averages.server_step import STEPPING, rate_of
from fed.lamp.tasks import TASKS
from fed.settings.groups import GROUPS, OF_ENTRIES, Answers, Base, Data, Edits, Federation, Training
from fed.settings.methods import METHODS
from fed.settings.rules import SettingsError, checked, key_of

# Values of earlier releases, in vaults and finished cells, whose numbers today's value gives bit for bit.
RENAMED = {"engine": {"sequential": "batched"}}

# What may be another when a run is gone on with: how long to wait, and where results would have gone.
MAY_CHANGE = ("resume", "output-dir", "node-timeout", "min-nodes", "reply-timeout", "run-deadline")


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

    @property
    def client_mu(self) -> float:
        """How hard a client pulls its edit to where the round began; what a message says of it is not listened to."""
        return self.proximal_mu if self.strategy == "fedprox" else 0.0

    @classmethod
    def parse(cls, config: Mapping[str, object], *, finished: bool = False) -> Settings:
        """Check a flat run config. Raises SettingsError at the first key that breaks a rule.

        Args:
            config: the run's, flat.
            finished: of a run that is over, in a vault or a report: how it federated is no longer up to anybody.
        """
        known = keys()
        for key in config:
            if key not in known:
                raise SettingsError(_unknown(str(key), known))
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
        for rule in (method_honours_its_keys, choice_has_labels, *(() if finished else FEDERATION_RULES)):
            rule(settings)
        return settings

    def as_config(self) -> dict[str, object]:
        """The flat run config again, by key."""
        return {key: getattr(self, one.name) for key, one in keys().items()}

    def as_json(self) -> str:
        return json.dumps(self.as_config(), sort_keys=True)

    def unbroken(self) -> Settings:
        """The settings of the run that this one goes on with, as if it had never been broken off."""
        return replace(self, resume="")

    def of_run(self) -> dict[str, object]:
        """The keys, and their values, that decide a run's numbers: a run is gone on with where these are the same."""
        return {key: value for key, value in self.as_config().items() if key not in MAY_CHANGE}


def keys() -> dict[str, Field[Any]]:
    """Every run-config key, group by group, and its field."""
    return {key_of(one.name): one for group in GROUPS for one in fields(group)}


def _unknown(key: str, known: Collection[str]) -> str:
    """One line about a key that there is not, with those that are like it."""
    short = key if len(key) <= 40 else f"{key[:37]}…"
    near = get_close_matches(key.replace("_", "-").lower(), known, n=3)
    asked = f"; did you mean {' or '.join(near)}?" if near else ";"
    return f"run config has no key {short!r}{asked} all keys: fed/settings/groups.py, or any sims/lamp*/pyproject.toml"


def method_honours_its_keys(settings: Settings) -> None:
    """A method that can do only some of a key's values gets one of these (`fed.settings.methods`)."""
    for key, allowed in METHODS[settings.method].only.items():
        value = settings.as_config()[key]
        if value not in allowed:
            fix = " or ".join(map(str, allowed))
            raise SettingsError(
                f"method {settings.method!r} cannot honour {key}={value!r}; {key} must be {fix} with it"
            )


def choice_has_labels(settings: Settings) -> None:
    """A choice needs labels to choose from."""
    if settings.answer == "choice" and not TASKS[settings.task].labels:
        having = ", ".join(name for name, task in TASKS.items() if task.labels)
        raise SettingsError(f"answer='choice' needs a task with labels ({having}), got {settings.task}; use 'decode'")


def strategy_compares_maps(settings: Settings) -> None:
    """A strategy that compares replies entry by entry would need entries that mean the same in all of them."""
    if instead := OF_ENTRIES.get(settings.strategy):
        raise SettingsError(
            f"strategy {settings.strategy!r} compares entries that differ with every user's own coordinates; "
            f"average={instead!r} compares the maps: use it with strategy='fedavg'"
        )


def strategy_does_something(settings: Settings) -> None:
    """A strategy that would be fedavg bit for bit is refused by its name."""
    for strategy, key in (("fedavgm", "momentum"), ("fedprox", "proximal-mu")):
        if settings.strategy == strategy and not settings.as_config()[key]:
            raise SettingsError(f"strategy {strategy!r} with {key}=0.0 is fedavg; raise {key}, or say 'fedavg'")


def average_has_its_engine(settings: Settings) -> None:
    """Averages that leave a part of the edit untrained need the engine that can leave it, and rows that keep places."""
    if settings.average in ("exact", "frozen-r") and settings.engine != "batched":
        raise SettingsError(
            f"average={settings.average!r} leaves a part of the edit untrained, which engine={settings.engine!r} "
            f"cannot; use engine='batched'"
        )
    stepped = settings.strategy in STEPPING or rate_of(settings.strategy, settings.server_lr) != 1
    if settings.average == "exact" and stepped:
        raise SettingsError(
            f"average='exact' has other rows after every round, which strategy={settings.strategy!r} with "
            f"server-lr={settings.server_lr} would step; use strategy='fedavg' and server-lr=0"
        )


def average_has_its_attackers(settings: Settings) -> None:
    """How many users may lie is asked for by the averages that can do something about it."""
    if settings.attackers and settings.average not in NEEDS:
        raise SettingsError(
            f"attackers must be 0 with average={settings.average!r}, which trusts all users, got {settings.attackers}; "
            f"{', '.join(NEEDS)} do not"
        )
    if not settings.attackers and settings.average in NEEDS_ATTACKERS:
        raise SettingsError(f"average={settings.average!r} needs attackers of 1 or more; without any it is the mean")


FEDERATION_RULES = (strategy_compares_maps, strategy_does_something, average_has_its_engine, average_has_its_attackers)
