"""A finished run as plain-text tables, in the words that every view of a report shares.

The arms table compares what is evaluated (base, stage 1, stage 1 + 2, and stage 1 + another user's stage 2);
the bytes table gives the three sizes of what crossed (payload: tensor bytes; record: with array headers and
keys; wire: all that Flower ships). Both read only the dictionary that becomes `report.json`. The verdict
(`verdict.py`) and the HTML page (`page.py`, `charts.py`) take their names, directions and formats from here.
"""

import math
from collections.abc import Iterable
from io import StringIO
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Report = dict[str, Any]

ARMS = {"base": "base", "stage1": "stage 1", "stage1+2": "stage 1 + 2", "swapped": "swapped"}
PHASES = {"stage1": "stage 1", "stage2": "stage 2", "evaluate": "evaluate"}
WAYS = {"down": "server to client", "up": "client to server"}
SIZES = ("payload", "record", "wire")


class Metric(NamedTuple):
    """A number reported for an arm: its key in the report, name and unit for people, which way is better."""

    key: str
    label: str
    unit: str
    lower_is_better: bool

    @property
    def direction(self) -> str:
        return "lower is better" if self.lower_is_better else "higher is better"

    def gain(self, value: float | None, against: float | None) -> float | None:
        """How much better `value` is than `against`: positive is better, whichever way the metric points."""
        if value is None or against is None or not math.isfinite(value - against):
            return None
        return against - value if self.lower_is_better else value - against


METRICS = (
    Metric("loss_per_token", "loss per token", "nats", True),
    Metric("loss_per_token_without_eos", "loss without EOS", "nats", True),
    Metric("rouge1", "ROUGE-1", "F-measure, 0 to 1", False),
    Metric("rougeL", "ROUGE-L", "F-measure, 0 to 1", False),
    Metric("rouge1_lamp", "ROUGE-1, LaMP's words", "F-measure, 0 to 1", False),
    Metric("rougeL_lamp", "ROUGE-L, LaMP's words", "F-measure, 0 to 1", False),
    Metric("accuracy", "accuracy", "share of queries, 0 to 1", False),
    Metric("f1", "macro-F1", "0 to 1", False),
    Metric("mae", "MAE", "rating points", True),
    Metric("rmse", "RMSE", "rating points", True),
)


def metrics_of(report: Report) -> list[Metric]:
    """The metrics that at least one arm of this run has, the loss first."""
    arms = [arm for arm in report["arms"].values() if arm]
    return [metric for metric in METRICS if any(arm.get(metric.key) is not None for arm in arms)]


def value_of(arms: dict[str, Any], arm: str, metric: Metric) -> float | None:
    """One arm's number, or None where the arm or the number could not be computed."""
    value = (arms.get(arm) or {}).get(metric.key)
    return None if value is None else float(value)


def best_arms(report: Report, metric: Metric) -> set[str]:
    """The arms that share the best value of a metric (none when nothing finite was computed)."""
    values = {arm: value_of(report["arms"], arm, metric) for arm in ARMS}
    finite = {arm: value for arm, value in values.items() if value is not None and math.isfinite(value)}
    if not finite:
        return set()
    best = min(finite.values()) if metric.lower_is_better else max(finite.values())
    return {arm for arm, value in finite.items() if value == best}


def shown(text: object, limit: int) -> str:
    """A string from outside as one printable line, cut to `limit`; a line break becomes a visible escape."""
    start = str(text)[: limit + 1]
    clean = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in start)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def human_bytes(count: int | float) -> str:
    """A size for people, in binary units: 0 B, 512 B, 1.50 KiB, 40.63 GiB."""
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        # 1023.995 would print as 1024.00, so the step to the next unit comes that little bit earlier.
        if abs(size) < (1024 if unit == "B" else 1023.995) or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} B" if unit == "B" else f"{size:.2f} {unit}"


def p_shown(p: float | None) -> str:
    """A p value for people: three decimals, "<0.001" below them."""
    return "–" if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def size_cell(count: int) -> str:
    """A size for people with the exact number of bytes behind it: 1.50 KiB (1,536)."""
    return human_bytes(count) if abs(count) < 1024 else f"{human_bytes(count)} ({count:,})"


def bytes_rows(report: Report) -> list[tuple[str, str, dict[str, int]]]:
    """(phase, way, sizes and messages) in the order of the run, phases that did not happen left out."""
    phases = report.get("bytes") or {}
    order = [*(phase for phase in PHASES if phase in phases), *sorted(set(phases) - set(PHASES))]
    rows = []
    for phase in order:
        for way in WAYS:
            counts = (phases[phase] or {}).get(way)
            if counts is not None:
                rows.append((phase, way, {key: int(counts.get(key, 0)) for key in (*SIZES, "messages")}))
    return rows


def bytes_total(report: Report) -> dict[str, int]:
    """The sums over all phases and both ways."""
    rows = bytes_rows(report)
    return {key: sum(counts[key] for _, _, counts in rows) for key in (*SIZES, "messages")}


def arms_table(report: Report) -> Table:
    """Arms by metrics: value, difference to base in brackets, a star at the best value."""
    table = Table(title="Quality by arm (* best; in brackets: difference to base)", box=box.SIMPLE_HEAD)
    table.title_justify = "left"
    table.add_column("arm")
    metrics = metrics_of(report)
    for metric in metrics:
        table.add_column(Text(f"{metric.label}\n{metric.direction}"), justify="right")
    best = {metric.key: best_arms(report, metric) for metric in metrics}
    for arm, name in ARMS.items():
        cells = []
        for metric in metrics:
            value, base = value_of(report["arms"], arm, metric), value_of(report["arms"], "base", metric)
            cell = "not computed" if value is None else f"{value:.4f}"
            if arm != "base" and value is not None and base is not None:
                cell += f" ({value - base:+.4f})"
            cells.append(Text(cell + (" *" if arm in best[metric.key] else "  ")))
        table.add_row(Text(name), *cells, end_section=arm == "swapped")
    for name, scores in (report.get("synthetic_ceilings") or {}).items():
        numbers = (scores.get(metric.key) for metric in metrics)
        table.add_row(Text(f"ceiling: {name}"), *("" if value is None else f"{value:.4f}  " for value in numbers))
    return table


def bytes_table(report: Report) -> Table:
    """Phases by way: messages, and payload, record and wire bytes, rounded for people and exact."""
    table = Table(title="Bytes between server and clients", box=box.SIMPLE_HEAD, show_footer=True)
    table.title_justify = "left"
    total = bytes_total(report)
    table.add_column("phase", footer="all")
    table.add_column("way")
    table.add_column("messages", footer=f"{total['messages']:,}", justify="right")
    for size in SIZES:
        table.add_column(size, footer=size_cell(total[size]), justify="right")
    for phase, way, counts in bytes_rows(report):
        cells = [f"{counts['messages']:,}", *(size_cell(counts[size]) for size in SIZES)]
        table.add_row(*(Text(cell) for cell in (PHASES.get(phase, phase), way, *cells)))
    return table


def render(tables: Iterable[Table], width: int = 124) -> str:
    """The tables as plain text without terminal codes, one after another, lines free of trailing blanks."""
    out = StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, no_color=True)
    for table in tables:
        console.print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n") + "\n"
