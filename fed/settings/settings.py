"""The run's settings: Flower's flat run config, parsed once into a frozen dataclass and checked by rule.

Keys are those of `[tool.flwr.app.config]` in sims/*/pyproject.toml; an error names the key, the rule and the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path

from fed.averages.average import AVERAGES
from fed.base.device import DTYPES
from fed.communication.wire import WIRE_DTYPES
from fed.edits.positions import Positions
from fed.lamp.tasks import TASKS
from fed.settings.methods import ENGINES, METHODS
from fed.settings.paths import from_checkout
from fed.settings.rules import SettingsError, typed

COHORTS = ("paper", "all")
ANSWERS = ("decode", "choice")
STRATEGIES = (
    "fedavg",
    "fedavgm",
    "fedadam",
    "fedadagrad",
    "fedyogi",
    "fedprox",
    "fedmedian",
    "fedtrimmedavg",
    "krum",
    "multikrum",
    "bulyan",
)
# These take the mean of the replies as their pseudo-gradient; the others compare replies entry by entry.
AVERAGING_STRATEGIES = ("fedavg", "fedavgm", "fedadam", "fedadagrad", "fedyogi", "fedprox")


@dataclass(frozen=True)
class Settings:
    """One run. Field names are the run-config keys with `_` for `-`; 0 means "all" where a count allows it."""

    app: str
    task: str
    method: str
    engine: str
    base_model: str
    data: str
    cohorts: str
    stage1_users: int
    stage2_users: int
    strategy: str
    rounds: int
    fraction: float
    local_epochs: int
    stage2_epochs: int
    batch_size: int
    max_items: int
    max_length: int
    layers: str
    stage1_rank: int
    stage2_rank: int
    positions: str
    stage2_positions: str
    stage1_lr: float
    stage2_lr: float
    weight_decay: float
    clip: float
    average: str
    wire_dtype: str
    max_queries: int
    max_new_tokens: int
    temperature: float
    token_budget: int
    device: str
    dtype: str
    seed: int
    node_timeout: int
    output_dir: str
    # Keys of later releases have defaults, so that a settings file written before them still parses.
    retrieved: int = 0
    profile: bool = False
    style_layer: int = -1
    style_strength: float = 0.1
    held_out: int = 0
    answer: str = "decode"
    top_k: int = 10
    top_p: float = 0.9
    activation_cache: int = 512
    min_nodes: int = 0
    reply_timeout: int = 0

    @classmethod
    def parse(cls, config: Mapping[str, object]) -> Settings:
        """Check a flat run config. Raises SettingsError at the first key that breaks a rule."""
        names = {name.replace("_", "-"): name for name in cls.__dataclass_fields__}
        for key in config:
            if key not in names:
                raise SettingsError(f"run config has no key {key!r}; known keys: {', '.join(sorted(names))}")
        values: dict[str, object] = {}
        for key, name in names.items():
            if key in config:
                values[name] = typed(key, config[key], str(cls.__dataclass_fields__[name].type))
            elif cls.__dataclass_fields__[name].default is MISSING:
                raise SettingsError(f"run config lacks the key {key!r}")
        entry = METHODS.get(str(values["method"]))
        for key, value in entry.implies.items() if entry else ():
            values[names[key]] = values.get(names[key]) or value
        settings = cls(**values)  # type: ignore[arg-type]
        settings._check()
        return settings

    def _check(self) -> None:
        choices = {
            "method": tuple(METHODS),
            "engine": ENGINES,
            "cohorts": COHORTS,
            "answer": ANSWERS,
            "strategy": STRATEGIES,
            "average": AVERAGES,
            "wire-dtype": tuple(WIRE_DTYPES),
            "dtype": ("auto", *DTYPES),
        }
        for key, allowed in choices.items():
            value = getattr(self, key.replace("-", "_"))
            if value not in allowed:
                raise SettingsError(f"{key} must be one of {', '.join(allowed)}, got {value!r}")
        for key, allowed in METHODS[self.method].only.items():
            value = getattr(self, key.replace("-", "_"))
            if value not in allowed:
                fix = " or ".join(allowed)
                raise SettingsError(
                    f"method {self.method!r} cannot honour {key}={value!r}; {key} must be {fix} with it"
                )
        at_least = {
            1: (
                "rounds",
                "local-epochs",
                "stage2-epochs",
                "batch-size",
                "stage1-rank",
                "stage2-rank",
                "top-k",
                "node-timeout",
            ),
            0: (
                "stage1-users",
                "stage2-users",
                "max-items",
                "held-out",
                "max-queries",
                "max-new-tokens",
                "seed",
                "weight-decay",
                "activation-cache",
                "retrieved",
                "min-nodes",
                "reply-timeout",
            ),
            16: ("max-length", "token-budget"),
        }
        for low, keys in at_least.items():
            for key in keys:
                value = getattr(self, key.replace("-", "_"))
                if value < low:
                    raise SettingsError(f"{key} must be at least {low}, got {value}")
        for key in ("stage1-lr", "stage2-lr"):
            value = getattr(self, key.replace("-", "_"))
            if not 0 < value < 1:
                raise SettingsError(f"{key} must lie between 0 and 1, got {value}")
        for key, share in (("fraction", self.fraction), ("top-p", self.top_p)):
            if not 0 < share <= 1:
                raise SettingsError(f"{key} must lie in (0, 1], got {share}")
        if self.style_layer < -1:
            raise SettingsError(f"style-layer must be a block's number from 0, or -1, got {self.style_layer}")
        if self.answer == "choice" and self.task in TASKS and not TASKS[self.task].labels:
            having = ", ".join(name for name, task in TASKS.items() if task.labels)
            raise SettingsError(f"answer='choice' needs a task with labels ({having}), got {self.task}; use 'decode'")
        if self.clip < 0 or self.temperature < 0:
            raise SettingsError(f"clip and temperature must not be negative, got {self.clip} and {self.temperature}")
        if self.average != "fedavg" and self.strategy not in AVERAGING_STRATEGIES:
            raise SettingsError(
                f"strategy {self.strategy!r} compares replies entry by entry, so it needs average='fedavg', "
                f"got average={self.average!r}"
            )
        try:
            Positions.parse(self.positions)
        except ValueError as error:
            raise SettingsError(str(error)) from error
        try:
            if self.stage2_positions != "same":
                Positions.parse(self.stage2_positions)
        except ValueError as error:
            raise SettingsError(f"stage2-{error}; or same, those of stage 1") from error
        self._layer_numbers()

    def _layer_numbers(self) -> tuple[int, ...] | None:
        if self.layers == "all":
            return None
        try:
            numbers = tuple(int(part) for part in self.layers.split(","))
        except ValueError:
            numbers = ()
        if not numbers or sorted(set(numbers)) != list(numbers) or numbers[0] < 0:
            raise SettingsError(
                f"layers must be 'all' or rising block numbers from 0 such as '10,16,22', got {self.layers!r}"
            )
        return numbers

    def edited_layers(self, blocks: int) -> tuple[int, ...]:
        """The decoder blocks to edit in a base model of `blocks` blocks. Raises SettingsError for one it has not."""
        numbers = self._layer_numbers()
        if numbers is None:
            return tuple(range(blocks))
        if numbers[-1] >= blocks:
            raise SettingsError(f"layers must lie in 0..{blocks - 1} for this base model, got {self.layers!r}")
        return numbers

    def as_config(self) -> dict[str, object]:
        """The flat run config again, by key."""
        return {name.replace("_", "-"): getattr(self, name) for name in self.__dataclass_fields__}

    def as_json(self) -> str:
        return json.dumps(self.as_config(), sort_keys=True)

    def run_folder(self, run_id: int) -> Path:
        """Where this run's results go: an absolute path, whatever the working directory of Flower's daemon is.

        A relative output-dir is taken from the checkout that holds `sims/`, or else from the working directory.
        """
        return from_checkout(self.output_dir) / str(run_id)

    @property
    def data_source(self) -> str:
        """`data`, a relative folder made absolute in the same way."""
        return self.data if self.data.split(":")[0] == "synthetic" else str(from_checkout(self.data))

    @property
    def base_source(self) -> str:
        """`base-model`, a relative folder or file made absolute where there is one."""
        path = from_checkout(self.base_model)
        return str(path) if path.exists() or self.base_model.endswith(".gguf") else self.base_model
