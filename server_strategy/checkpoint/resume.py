"""Which checkpoint a run goes on from, and whether it is this run's: a foreign one is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fed.settings import paths
from fed.settings.settings import Settings
from server_strategy.checkpoint import checkpoint
from server_strategy.checkpoint.checkpoint import FILE, Checkpoint
from server_strategy.grid.nodes import Federation, RunError


def saved(settings: Settings, folder: Path) -> Checkpoint | None:
    """The checkpoint that the settings ask to go on from; None for a new run.

    Raises:
        RunError: the folder is no run's, its checkpoint is torn, or it is of a run with other settings.
    """
    if not settings.resume:
        return None
    last = _last(folder)
    theirs = Settings.parse(last.identity["settings"]).of_run()
    for key, value in settings.of_run().items():
        if theirs[key] != value:
            raise RunError(
                f"resume goes on with a run of the same settings, but {key} was {theirs[key]!r} in {str(folder)!r} "
                f"and is {value!r}; give it the old value, or start a new run"
            )
    return last


def settings_in(folder: str) -> dict[str, Any]:
    """The run config of the run in a folder, as the key `resume` names it. Raises RunError where there is none."""
    return dict(_last(paths.from_checkout(folder)).identity["settings"])


def _last(folder: Path) -> Checkpoint:
    last = checkpoint.read(folder)
    if last is None:
        raise RunError(f"resume must be the folder of a run, and there is no {FILE} in {str(folder)!r}")
    return last


def identity(settings: Settings, federation: Federation) -> dict[str, Any]:
    """What makes a run this run: its settings, its base model, its users and how many rows each has."""
    return {
        "settings": settings.unbroken().as_config(),
        "base": federation.base["fingerprint"],
        "users": {"stage1": federation.stage1, "stage2": {u: list(n) for u, n in federation.stage2.items()}},
        "supernodes": federation.nodes,
    }


def check(last: Checkpoint, mine: dict[str, Any], warn: Callable[[str], None]) -> None:
    """Compare what a checkpoint was made with to this run's `identity`.

    Args:
        last: the checkpoint.
        mine: this run's identity.
        warn: called with a line about what may change rounding, and no more.
    Raises:
        RunError: another base model, or other users.
    """
    for key, what in (("base", "base model"), ("users", "users and rows")):
        if last.identity[key] != mine[key]:
            raise RunError(
                f"resume goes on with the same {what}, but those of the checkpoint are others "
                f"({_short(last.identity[key])}, now {_short(mine[key])}); start a new run"
            )
    if last.identity["supernodes"] != mine["supernodes"]:
        warn(
            f"the run began on {last.identity['supernodes']} SuperNodes and goes on on {mine['supernodes']}: "
            "its numbers may round otherwise"
        )


def _short(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{len(value['stage1'])} federate, {len(value['stage2'])} personalize"
