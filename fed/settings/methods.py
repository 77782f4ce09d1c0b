"""The registry of methods: one line each, which a run chooses by `method`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ENGINES = ("batched", "pyreft")


@dataclass(frozen=True)
class Entry:
    """A method's line in the registry.

    Attributes:
        where: its class, "module.Class" (a `fed.methods.Method`), imported when a run asks for it.
        only: run-config key -> the values that the method can honour; any other is an error. An engine is for edits
        of hidden states: a method that trains none, or by a library of its own, has the default's name alone.
        implies: run-config key -> what it is where the run config leaves it at 0 or false.
        libraries: packages that it imports when it trains, and that a run of the default does not need.
    """

    where: str
    only: Mapping[str, tuple[str | float, ...]] = field(default_factory=lambda: {"engine": ("batched",)})
    implies: Mapping[str, object] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()


_ANY_ENGINE: Mapping[str, tuple[str | float, ...]] = {"engine": ENGINES}
ENGINE_LIBRARIES: Mapping[str, tuple[str, ...]] = {"pyreft": ("pyreft", "pyvene")}
# Of LoRA's maps B A; the other averages are of edits with orthonormal rows.
_ADAPTERS: Mapping[str, tuple[str | float, ...]] = {
    "engine": ("batched",),
    "average": ("svd", "fedavg", "median", "krum", "multikrum", "trimmed", "bulyan"),
}
# One matrix of LoRA's two, whose mean is that of its entries under either name.
_ENTRIES: Mapping[str, tuple[str | float, ...]] = {"engine": ("batched",), "average": ("svd", "fedavg")}
METHODS: dict[str, Entry] = {
    "perfit": Entry("fed.methods.perfit.PerFit", _ANY_ENGINE),
    "perfit-stage1": Entry("fed.methods.perfit.PerFitStage1", _ANY_ENGINE),
    "reft-p": Entry("fed.methods.reft.ReFT", _ANY_ENGINE),
    "reft-cp": Entry("fed.methods.reft.ReFTCP", _ANY_ENGINE),
    "lora-c": Entry("fed.methods.lora.Lora", _ADAPTERS, libraries=("peft",)),
    "lora-p": Entry("fed.methods.lora.Lora", libraries=("peft",)),
    "oppu": Entry("fed.methods.lora.Lora", _ADAPTERS, libraries=("peft",)),
    "ffa-lora": Entry("fed.methods.half_lora.FFALora", _ENTRIES, libraries=("peft",)),
    "fedsa-lora": Entry("fed.methods.half_lora.FedSALora", {**_ENTRIES, "stage1": ("federated",)}, libraries=("peft",)),
    "fedreft": Entry(
        "fed.methods.fedreft.FedReFT",
        {
            **_ANY_ENGINE,
            "strategy": ("fedavg",),
            "average": ("svd",),
            "stage1": ("federated",),
            "server-lr": (0.0, 1.0),
        },
    ),
    "stylevector": Entry("fed.methods.stylevector.StyleVector"),
    "non-personalized": Entry("fed.methods.non_personalized.NonPersonalized"),
    "rag": Entry("fed.methods.non_personalized.NonPersonalized", implies={"retrieved": 1}),
    "pag": Entry("fed.methods.non_personalized.NonPersonalized", implies={"profile": True}),
}
