"""All numbers that follow from a model's shapes alone: the paper's tables, three scenarios."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from communication.tables import Report
from fed.base.skeleton import skeleton
from fed.communication.costs import ANALYSED, Cost, cost
from fed.communication.published import flowertune_budget, mean_reduction_percent, paper_table
from fed.communication.traffic import CROWDS, UPLINKS, federated_traffic, serving, storage


def analyse(options: argparse.Namespace) -> Report:
    """All numbers of the analytic part. Raises ValueError for a value that breaks its rule."""
    try:
        first, second = (int(part) for part in options.sum_ranks.split(","))
    except ValueError:
        raise ValueError(f"sum-ranks must be two whole numbers such as 64,32, got {options.sum_ranks!r}") from None
    plan: dict[str, Any] = {"users": options.users, "rounds": options.rounds, "fraction": options.fraction}
    uses, dtype = options.uses_per_day, options.wire_dtype
    # A bad number is told before seconds go into building models.
    nothing = Cost("nothing")
    federated_traffic(nothing, **plan)
    serving(nothing, uses_per_day=uses, uplink=UPLINKS[0])
    base = skeleton(options.model)
    costs = [cost(method, base, ranks=(first, second)) for method in ANALYSED]
    return {
        "model": {key: getattr(base, key) for key in ("name", "parameters", "hidden_size", "layers")},
        "settings": plan | {"wire_dtype": dtype, "sum_ranks": [first, second], "uses_per_day": uses},
        "paper_table": paper_table(),
        "paper_mean_reduction_percent": mean_reduction_percent(),
        "flowertune": flowertune_budget(),
        "methods": [_tensors(weight, dtype) for weight in costs],
        "scenarios": {
            "federated": [_row(c, federated_traffic(c, dtype=dtype, **plan)) for c in costs],
            "storage": [_row(c, storage(c, users=users, dtype=dtype)) for c in costs for users in CROWDS],
            "serving": [
                _row(c, serving(c, uses_per_day=uses, uplink=uplink, dtype=dtype)) for c in costs for uplink in UPLINKS
            ],
        },
        "notes": _notes(),
    }


def _row(weight: Cost, scenario: Any) -> dict[str, Any]:
    return {"method": weight.method, **asdict(scenario)}


def _tensors(weight: Cost, dtype: str) -> dict[str, Any]:
    """What one user's tensors weigh, in numbers and in bytes."""
    return {
        "method": weight.method,
        "federated_parameters": weight.federated_parameters,
        "federated_bytes": weight.federated_bytes(dtype),
        "private_parameters": weight.private_parameters,
        "private_bytes": weight.private_bytes(dtype),
        "frozen_bytes": weight.frozen_bytes(dtype),
    }


def _notes() -> list[str]:
    """What a reader of the numbers should know."""
    budget = flowertune_budget()
    return [
        f"The mean of the twelve reductions is {mean_reduction_percent():.2f} %; the paper's abstract says 92.3 %.",
        f"FlowerTune's Mistral-7B, LoRA r = 32 on q, v: {budget['parameters']:,} parameters × "
        f"{budget['bytes_per_number']} B × {budget['messages']} messages = {budget['total_gib']:.2f} GiB "
        "(listed as 40.7).",
        "Sizes are payload (tensor bytes) in binary units; PerFit's rank biases, which are sent, are counted "
        "everywhere but in the paper's tables.",
        "lora-c and ffa-lora have no private tensors: all users share one adapter. ffa-lora's frozen A comes from "
        "a seed, and a device keeps it.",
    ]
