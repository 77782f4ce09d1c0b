"""The Flower apps of `sims/`: where they are, their run config with overrides, checked before anything is started."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `fed` imports torch, two seconds in which a SuperLink can start: so it is imported where it is used
    from fed.settings.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[2]
SIMS = CHECKOUT / "sims"
SUPERNODES = 2  # of a simulation that does not say how many: Flower's own number
_COUNTED = {"num-supernodes": 1, "init-args-num-cpus": 1, "init-args-num-gpus": 0}  # in a federation config: the least
Config = Mapping[str, Any]
_PAIR = re.compile(r"""[\w.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"']+)""")


def words(config: Config) -> str:
    """Settings as `-c` takes them."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())


def app_of(task: str) -> str:
    """The app of `sims/` for a task: LaMP_2N -> lamp2n. Raises ValueError for an unknown task."""
    from fed.lamp.tasks import get_task

    return get_task(task).name.replace("_", "").lower()


def settings(app: str, config: Config) -> Settings:
    """The settings of an app of `sims/` with these changes, checked. Raises ValueError."""
    return settings_of(SIMS / app, [words(config)] if config else [])


def parsed(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of every `-c`, later ones winning: key=value pairs, or a TOML file of settings.

    Flower reads past what it cannot parse; a setting that is silently not set would be worse than an error.

    Promise: what Flower would skip is refused (tests/sims/simulation/test_apps.py).

    Raises:
        ValueError: a word is no key=value, or a file cannot be read.
    """
    from flwr.common.config import parse_config_args  # here: Flower is half a second in which a SuperLink can start

    changes: dict[str, Any] = {}
    for override in overrides:
        pairs = spelled_out(override)
        try:
            settings = parse_config_args([pairs])
        except Exception as error:  # whatever Flower's reader of TOML raises
            raise ValueError(f"-c must be key=value pairs with texts in quotes, got {override!r}") from error
        if not settings or _PAIR.sub("", pairs).split():
            raise ValueError(f"-c must be key=value pairs with texts in quotes, got {override!r}")
        changes |= settings
    return changes


def federation_of(words: str) -> dict[str, Any]:
    """Flower's federation config, as `--federation-config` takes it.

    Raises:
        ValueError: what is no key=value, or no number where one is counted with here.
    """
    federation = parsed([words]) if words else {}
    for key, least in _COUNTED.items():
        if key in federation and not (str(federation[key]).isdecimal() and int(str(federation[key])) >= least):
            raise ValueError(f"{key} must be a whole number of at least {least}, got {federation[key]!r}")
    return federation


def with_all_cores(federation: Mapping[str, Any], cores: int) -> dict[str, Any]:
    """A federation config whose actors share out a machine's cores, where it does not say what an actor gets.

    Flower gives an actor two, and of two SuperNodes on sixteen cores each would train on two. Here each has its part,
    and Flower's two at least: fewer would mean more actors, of a gigabyte each.
    """
    key = "client-resources-num-cpus"
    cores = int(str(federation.get("init-args-num-cpus", cores)))
    each = cores // max(1, int(str(federation.get("num-supernodes", SUPERNODES))))
    return dict(federation) if key in federation or each <= 2 else {**federation, key: each}


def spelled_out(override: str) -> str:
    """key=value pairs; a TOML file of settings is read into them, since `flwr` takes no file beside pairs."""
    if not override.endswith(".toml"):
        return override
    try:
        return words(tomllib.loads(Path(override).expanduser().read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"-c must name a readable TOML file of settings, got {override!r} ({error})") from error


def defaults(app: Path) -> dict[str, Any]:
    """The run config of an app, by its folder. Raises ValueError where that is none."""
    file = app / "pyproject.toml"
    if not file.is_file():
        raise ValueError(f"the app must be a folder with a pyproject.toml, and there is no {str(file)!r}")
    return dict(tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"])


def left_out(app: Path) -> str | None:
    """What lies in an app's folder and is not sent to its nodes, in one line; None where all of it is settings.

    Promise: a bundle has settings alone, whatever lies in the folder (tests/sims/simulation/test_apps.py).
    """
    entries = {entry.name: entry for entry in sorted(app.iterdir())} if app.is_dir() else {}
    others = [
        f"{name}/ ({sum(path.is_file() for path in entry.rglob('*'))} files)" if entry.is_dir() else name
        for name, entry in entries.items()
        if entry.suffix != ".toml" and name not in ("README.md", "__pycache__")
    ]
    if not others:
        return None
    return f"left out of the bundle that nodes are sent: {', '.join(others[:8])}{' …' if len(others) > 8 else ''}"


def settings_of(app: Path, overrides: Sequence[str]) -> Settings:
    """The app's run config with the overrides, checked; a run that is resumed has its own. Raises ValueError."""
    config, changes = defaults(app), parsed(overrides)
    from fed.settings.settings import Settings

    if not changes.get("resume"):
        return Settings.parse({**config, **changes})
    from server_strategy.checkpoint import resume
    from server_strategy.grid.nodes import RunError

    try:
        settings = Settings.parse({**config, **resume.settings_in(changes["resume"]), **changes})
        resume.saved(settings, settings.run_folder(0))
    except RunError as error:
        raise ValueError(str(error)) from None
    return settings


def preflight(settings: Settings) -> None:
    """Open the data, find the base model and the method's libraries: a mistake costs seconds. Raises ValueError."""
    from fed import methods
    from fed.base import device, facts, sources
    from fed.lamp.cohorts import roster
    from fed.lamp.records import open_corpus
    from fed.lamp.tasks import get_task

    methods.check_installed(settings)
    device.check(settings.device, settings.dtype)
    sources.check(settings.base_source)
    facts.check_files(settings.base_source, settings.max_length, settings.prompt_format)
    corpus = open_corpus(settings.data_source, get_task(settings.task), seed=settings.seed)
    roster(corpus, cohorts=settings.cohorts, stage1_users=settings.stage1_users, stage2_users=settings.stage2_users)
