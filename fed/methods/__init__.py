"""The personalization methods a run can choose: one file each here, one line each in `fed.settings.methods.METHODS`.

method             the interface: what is federated, what is private, how it trains, what answers
perfit             PerFit, and its stage 1 alone
reft               private LoReFT alone: reft-p, reft-cp
fedreft            FedReFT: each user's edit mixed with the median of all others'
lora               lora-c, lora-p, oppu
half_lora          ffa-lora, fedsa-lora: one of the two matrices is federated
stylevector        a user's style as one direction, found without training
non_personalized   the base as it is; rag and pag too
exported           the trained edits as other software takes them: LoReFT for pyreft and EasySteer
edit_reader        answers under a stack of edits, and what the answers of every method share
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from fed.base.skeleton import Skeleton
from fed.methods.method import Method, Trained, UserRows
from fed.settings.methods import ENGINE_LIBRARIES, METHODS
from fed.settings.settings import Settings

__all__ = ["Method", "Trained", "UserRows", "check_installed", "class_of", "make"]


def make(settings: Settings, base: Skeleton) -> Method:
    """The run's method for a base model of these shapes. Raises ValueError where it does not fit them."""
    return class_of(settings.method)(settings, base)


def class_of(name: str) -> type[Method]:
    """The class of a method of the registry."""
    module, _, of_class = METHODS[name].where.rpartition(".")
    method: type[Method] = getattr(import_module(module), of_class)
    return method


def check_installed(settings: Settings) -> None:
    """Look, without importing it, for what the run's method and engine need beyond a plain install.

    Raises:
        ValueError: a library is not installed.
    """
    libraries = METHODS[settings.method].libraries + ENGINE_LIBRARIES.get(settings.engine, ())
    missing = [library for library in libraries if find_spec(library) is None]
    if missing:
        raise ValueError(
            f"method {settings.method!r} with engine {settings.engine!r} needs {' and '.join(libraries)}, "
            f"not installed: {', '.join(missing)}; make setup installs all"
        )
