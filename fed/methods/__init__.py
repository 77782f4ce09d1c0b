"""The personalization methods a run can choose: one file each here, one line each in `fed.settings.methods.METHODS`."""

from __future__ import annotations

from importlib import import_module

from fed.base.skeleton import Skeleton
from fed.methods.method import Method, Trained, UserRows
from fed.settings.methods import METHODS
from fed.settings.settings import Settings

__all__ = ["Method", "Trained", "UserRows", "make"]


def make(settings: Settings, base: Skeleton) -> Method:
    """The run's method for a base model of these shapes. Raises ValueError where it does not fit them."""
    module, _, name = METHODS[settings.method].where.rpartition(".")
    method: type[Method] = getattr(import_module(module), name)
    return method(settings, base)
