"""Published numbers, recomputed by the functions that answer for every other model: the test of the analysis.

Sources: PerFit, tables 2 and 3 (Llama-2-7B); FlowerTune's LLM leaderboard, Mistral-7B.
"""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction
from typing import Any

from fed.base.skeleton import skeleton
from fed.communication.costs import QUERY_VALUE, Cost, lora_shapes, oppu, perfit
from fed.communication.traffic import federated_traffic
from fed.communication.wire import bytes_of

# The paper's table 2 has the tasks answered by labels, table 3 those answered by texts; both stages stand in each.
PAPER_TABLES = {"2N": 2, "2M": 2, "3": 2, "4": 3, "5": 3, "7": 3}
# task: Σ rank over layers of stage 1 and of stage 2
PAPER_SUM_RANKS = {"2N": (48, 96), "2M": (64, 8), "3": (96, 12), "4": (96, 12), "5": (32, 8), "7": (64, 32)}


def _as_printed(value: Fraction, decimals: int) -> float:
    """Rounded half up, as tables are printed (Python's own rounding takes 40.625 to 40.62)."""
    exact = Decimal(value.numerator) / Decimal(value.denominator)
    return float(exact.quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP))


def _rows() -> list[tuple[str, int, int, int, Fraction]]:
    """(task, stage, PerFit's parameters, OPPU's, percent less), PerFit's rank biases left out as in the paper."""
    base = skeleton("llama-2-7b")
    theirs = oppu(base)
    rows = []
    for task, ranks in PAPER_SUM_RANKS.items():
        ours = perfit(base, ranks, biases=False)
        for stage, mine, other in (
            (1, ours.federated_parameters, theirs.federated_parameters),
            (2, ours.private_parameters, theirs.private_parameters),
        ):
            rows.append((task, stage, mine, other, 100 * (1 - Fraction(mine, other))))
    return rows


def paper_table() -> list[dict[str, Any]]:
    """PerFit's tables 2 and 3, twelve rows: parameters against Llama-2-7B's and against OPPU's of the same stage.

    Percentages carry the decimals printed there: four for percent_of_base, two for reduction_percent.
    """
    base = skeleton("llama-2-7b").parameters
    return [
        {
            "table": PAPER_TABLES[task],
            "task": task,
            "stage": stage,
            "perfit_parameters": mine,
            "percent_of_base": _as_printed(Fraction(100 * mine, base), 4),
            "oppu_parameters": other,
            "reduction_percent": _as_printed(less, 2),
        }
        for task, stage, mine, other, less in _rows()
    ]


def mean_reduction_percent() -> float:
    """The mean of the twelve reductions before rounding, to two decimals: 92.93 (the abstract says 92.3)."""
    rows = _rows()
    return _as_printed(sum((less for *_, less in rows), Fraction()) / len(rows), 2)


def flowertune_budget() -> dict[str, Any]:
    """FlowerTune's Mistral-7B baseline: LoRA r = 32 on q, v in float32; 200 rounds of 2 among 20 clients.

    40.63 GiB (listed as 40.7); Flower adds no hand-out.
    """
    adapter = Cost("flowertune", federated=lora_shapes(skeleton("mistral-7b"), QUERY_VALUE, rank=32))
    traffic = federated_traffic(adapter, users=20, rounds=200, fraction=0.1, dtype="float32", hand_out=False)
    return {
        "model": "mistral-7b",
        "parameters": adapter.federated_parameters,
        "bytes_per_number": bytes_of({"": (1,)}, "float32"),
        "messages": traffic.messages,
        "total_bytes": traffic.total,
        "total_gib": _as_printed(Fraction(traffic.total, 2**30), 2),
    }
