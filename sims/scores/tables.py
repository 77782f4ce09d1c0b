"""The results of `compare_methods.py` for people: the same tables as Markdown and as one HTML page.

First each of PerFit's tables as one matrix, methods and stages by tasks; then its details task by task (every metric,
parameters, bytes, seconds); then the differences. A star marks the best mean of a column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from fed.lamp.tasks import get_task
from scores import tradeoff
from scores.figures import intervals
from scores.rows import STAGES, TITLES
from server_strategy.report.html import document
from server_strategy.report.tables import METRICS, Metric, human_bytes, p_shown

_METRICS = {metric.key: metric for metric in METRICS}
NONE = "–"
HEAD = ("method", "stage")
WAYS = {"t": "paired t", "bca": "BCa bootstrap, p by sign flips"}


@dataclass
class Section:
    """A titled table of texts.

    Attributes:
        best: (row, column) of the cells to mark.
        is_main: shown on the terminal too.
        figures: inline SVG, for the page alone.
    """

    title: str
    head: list[str]
    rows: list[list[str]]
    best: set[tuple[int, int]] = field(default_factory=set)
    note: str = ""
    is_main: bool = True
    figures: list[str] = field(default_factory=list)


def sections(results: dict[str, Any]) -> list[Section]:
    """All tables of a comparison, in the order of the page."""
    shown = []
    for table, title in TITLES.items():
        rows = [row for row in results["rows"] if row["table"] == table]
        if rows:
            shown.append(_matrix(title, rows))
            # With few queries the answers' scores are coarse; the loss on every token of the golds tells methods apart.
            shown.append(_matrix(f"{title.partition('.')[0]}, loss per token", rows, loss=True))
            shown += _details(title, rows)
    shown += _tradeoff(results["rows"])
    shown += _differences(results["differences"], results["run"]["interval"])
    if results["missing"]:
        lost = [[cell["task"], cell["method"], str(cell["seed"]), cell["reason"]] for cell in results["missing"]]
        shown.append(Section("Cells that did not finish", ["task", "method", "seed", "why"], lost))
    return shown


def named(label: str) -> str:
    """A method's name in a table: with how many items are retrieved, where it is RAG."""
    name, _, changes = label.partition(":")
    if name != "rag":
        return label
    items, _, others = (changes or "retrieved=1").partition(":")
    return f"rag, k = {items.removeprefix('retrieved=')}" if items.startswith("retrieved=") and not others else label


def _matrix(title: str, rows: Sequence[dict[str, Any]], *, loss: bool = False) -> Section:
    """Methods and stages by tasks: the task's own metrics, or the loss."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    lines = sorted(dict.fromkeys((row["stage"], row["method"]) for row in rows), key=lambda it: STAGES.index(it[0]))
    keys = {task: ("loss_per_token",) if loss else get_task(task).metrics for task in tasks}
    columns = [(task, _METRICS[key]) for task in tasks for key in keys[task]]
    by = {(row["stage"], row["method"], row["task"]): row for row in rows}
    spreads = [[by.get((*line, task), {"scores": {}})["scores"].get(m.key) for task, m in columns] for line in lines]
    head = [*HEAD, *(f"{task} {'↓' if loss else metric.label + _arrow(metric)}" for task, metric in columns)]
    cells = [
        [named(label), stage, *map(_spread, line_spreads)]
        for (stage, label), line_spreads in zip(lines, spreads, strict=True)
    ]
    best = {
        (row, place + len(HEAD))
        for place, (_, metric) in enumerate(columns)
        for row in _best([line_spreads[place] for line_spreads in spreads], metric)
    }
    seeds = max((len(row["seeds"]) for row in rows), default=0)
    return Section(title, head, cells, best, f"mean ± standard deviation over seeds, up to {seeds}; * the best mean")


def _details(title: str, rows: Sequence[dict[str, Any]]) -> list[Section]:
    shown = []
    for task in dict.fromkeys(row["task"] for row in rows):
        task_rows = [row for row in rows if row["task"] == task]
        metrics = [_METRICS[key] for key in ("loss_per_token", *get_task(task).metrics)]
        head = [*HEAD, *(f"{metric.label}{_arrow(metric)}" for metric in metrics)]
        head += [
            "seeds",
            "parameters",
            "of the base",
            "less than OPPU's",
            "payload, all users",
            "training s",
            "seconds",
        ]
        cells = [
            [
                named(row["method"]),
                row["stage"],
                *(_spread(row["scores"][metric.key]) for metric in metrics),
                str(len(row["seeds"])),
                f"{row['parameters']:,}",
                f"{row['percent_of_base']:.4f} %",
                NONE if row["less_than_oppu_percent"] is None else f"{row['less_than_oppu_percent']:.2f} %",
                human_bytes(row["payload_bytes"]["mean"]),
                f"{row['training_seconds']['mean']:.0f}",
                NONE if row["seconds"]["mean"] is None else f"{row['seconds']['mean']:.0f}",
            ]
            for row in task_rows
        ]
        best = {
            (row, place + len(HEAD))
            for place, metric in enumerate(metrics)
            for row in _best([scored["scores"][metric.key] for scored in task_rows], metric)
        }
        shown.append(Section(f"{title.partition('.')[0]}, {task}", head, cells, best, is_main=False))
    return shown


def _tradeoff(rows: Sequence[dict[str, Any]]) -> list[Section]:
    """Figure 1 (b) and its numbers, a row a mark."""
    cells = []
    for task, task_rows in tradeoff.by_task(rows).items():
        for row in task_rows:
            metric = tradeoff.metric_of(task)
            cells.append(
                [
                    named(row["method"]),
                    row["stage"],
                    task,
                    f"{row['trained_percent_of_base']:.4f} %",
                    f"{row['training_seconds']['mean']:.0f}",
                    f"{_spread(row['scores'][metric.key])} {metric.label}{_arrow(metric)}",
                ]
            )
    head = [*HEAD, "task", "trained, of the base", "training s", "metric"]
    note = "a mark is a method's last arm, its area the seconds that its stages trained"
    figures = tradeoff.figures(rows)
    title = "Figure 1 (b). Metric against trained parameters"
    return [Section(title, head, cells, note=note, is_main=False, figures=figures)] if figures else []


def _differences(gaps: Sequence[dict[str, Any]], interval: str) -> list[Section]:
    found = []
    for task in dict.fromkeys(gap["task"] for gap in gaps):
        own = [gap for gap in gaps if gap["task"] == task]
        cells = []
        for gap in own:
            metric = _METRICS[gap["metric"]]
            better = (gap["value"] < 0) == metric.lower_is_better
            verdict = f"{gap['ours'] if better else gap['theirs']} is better" if gap["real"] else "not told apart"
            cells.append(
                [
                    f"{named(gap['ours'])} − {named(gap['theirs'])}",
                    f"{metric.label}{_arrow(metric)}",
                    f"{gap['value']:+.4f}",
                    NONE if gap["low"] is None else f"{gap['low']:+.4f} to {gap['high']:+.4f}",
                    p_shown(gap["p"]),
                    verdict,
                ]
            )
        head = ["difference", "metric", "value", "95 % interval", "p", "verdict"]
        metrics = dict.fromkeys(gap["metric"] for gap in own)
        note = (
            f"mean over {own[0]['users']} users of each user's difference, last arms; interval: {WAYS[interval]}; "
            f"p corrected for the {len(own) // len(metrics)} comparisons of a metric (Holm); "
            "a verdict needs p < 0.05 and an interval without zero"
        )
        figures = [intervals([gap for gap in own if gap["metric"] == metric]) for metric in metrics]
        found.append(Section(f"What is real, {task}", head, cells, note=note, figures=figures))
    return found


def _arrow(metric: Metric) -> str:
    return " ↓" if metric.lower_is_better else " ↑"


def _spread(value: dict[str, float | None] | None) -> str:
    if value is None or value["mean"] is None:
        return NONE
    return f"{value['mean']:.4f}" + (f" ± {value['sd']:.4f}" if value["sd"] is not None else "")


def _best(column: Sequence[dict[str, float | None] | None], metric: Metric) -> list[int]:
    means = {row: spread["mean"] for row, spread in enumerate(column) if spread and spread["mean"] is not None}
    known = {row: mean for row, mean in means.items() if mean is not None}
    if len(known) < 2:
        return []
    best = (min if metric.lower_is_better else max)(known.values())
    return [row for row, mean in known.items() if mean == best]


def facts(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What a reader needs to repeat the comparison."""
    r = results["run"]
    return [
        ("command", r["command"]),
        ("commit", ", ".join(r["commits"])),
        ("machine", r["machine"]),
        ("base model", ", ".join(r["base_models"])),
        ("data", r["data"]),
        ("seeds", ", ".join(map(str, r["seeds"]))),
        ("preset", r["preset"]),
    ]


def markdown(results: dict[str, Any]) -> str:
    lines = ["# Methods compared", ""]
    lines += [f"- {name}: {value}" for name, value in facts(results)]
    for section in sections(results):
        lines += ["", f"## {section.title}", ""]
        if section.note:
            lines += [section.note, ""]
        lines.append("| " + " | ".join(section.head) + " |")
        lines.append("|" + "---|" * len(section.head))
        for number, row in enumerate(section.rows):
            cells = [f"**{c}** *" if (number, place) in section.best else c for place, c in enumerate(row)]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def as_rich(section: Section) -> Table:
    """The section for a terminal."""
    table = Table(title=section.title, caption=section.note or None, box=box.SIMPLE_HEAD, title_justify="left")
    for name in section.head:
        own = name in HEAD
        table.add_column(Text(name), justify="left" if own else "right", no_wrap=own)
    for number, row in enumerate(section.rows):
        table.add_row(*(Text(f"{c} *" if (number, place) in section.best else c) for place, c in enumerate(row)))
    return table


def html(results: dict[str, Any]) -> str:
    parts = ["<h1>Methods compared</h1>", '<dl class="card">']
    parts += [f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts(results)]
    parts.append("</dl>")
    for section in sections(results):
        parts.append(f'<h2>{escape(section.title)}</h2><div class="card scroll"><table class="tight">')
        parts.append(
            "<thead><tr>" + "".join(f"<th>{escape(name)}</th>" for name in section.head) + "</tr></thead><tbody>"
        )
        for number, row in enumerate(section.rows):
            cells = (
                f'<td class="best">{escape(c)} *</td>' if (number, place) in section.best else f"<td>{escape(c)}</td>"
                for place, c in enumerate(row)
            )
            parts.append("<tr>" + "".join(cells) + "</tr>")
        parts.append(f'</tbody></table></div><p class="faint">{escape(section.note)}</p>')
        if section.figures:
            figures = "".join(f'<figure class="card">{figure}</figure>' for figure in section.figures)
            parts.append(f'<div class="grid">{figures}</div>')
    return document("Methods compared", "\n".join(parts))


def flat(results: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per table, task, stage, method and metric, for CSV."""
    return [
        {key: row[key] for key in ("table", "task", "method", "stage", "arm")}
        | {"metric": metric, "mean": score["mean"], "sd": score["sd"], "seeds": " ".join(map(str, row["seeds"]))}
        | {key: row[key] for key in ("parameters", "percent_of_base", "less_than_oppu_percent")}
        | {key: row[key]["mean"] for key in ("payload_bytes", "seconds", "training_seconds")}
        for row in results["rows"]
        for metric, score in row["scores"].items()
    ]
