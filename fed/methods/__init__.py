"""The personalization methods a run can choose, by name."""

from __future__ import annotations

from fed.methods.method import Method, Trained, UserRows
from fed.methods.perfit import PerFit
from fed.settings import Settings

_REGISTRY: dict[str, type[Method]] = {"perfit": PerFit}

__all__ = ["Method", "Trained", "UserRows", "make"]


def make(settings: Settings, *, hidden_size: int, blocks: int) -> Method:
    """The run's method for a base model of this size. Raises SettingsError where the layers do not fit it."""
    return _REGISTRY[settings.method](settings, hidden_size=hidden_size, blocks=blocks)
