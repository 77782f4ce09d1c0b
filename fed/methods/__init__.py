"""The personalization methods a run can choose, by name."""

from __future__ import annotations

from fed.methods.lora import Lora
from fed.methods.method import Method, Trained, UserRows
from fed.methods.perfit import PerFit
from fed.settings import Settings
from fed.skeleton import Skeleton

_REGISTRY: dict[str, type[Method]] = {"perfit": PerFit, "lora-c": Lora, "lora-p": Lora, "oppu": Lora}

__all__ = ["Method", "Trained", "UserRows", "make"]


def make(settings: Settings, base: Skeleton) -> Method:
    """The run's method for a base model of these shapes. Raises ValueError where it does not fit them."""
    return _REGISTRY[settings.method](settings, base)
