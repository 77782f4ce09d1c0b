"""The page's part on users: who gains by the private part, and by how much."""

import math
import statistics
from typing import Any

from server_strategy.report import charts
from server_strategy.report.charts import ARM_COLOURS
from server_strategy.report.comparisons import NOT_TOLD, comparisons_of, judged, pair_shown, users_better
from server_strategy.report.html import card, decimal, faint, figure, folded, grid, html_table, safe
from server_strategy.report.tables import ARMS, Metric, Report, metrics_of, p_shown, value_of

MOST_USER_ROWS = 200  # in the users table; beyond, those who gain most and least


def _comparisons(report: Report) -> str:
    """For each pair of arms and metric: the mean difference, its interval, p, and for how many users it holds."""
    rows = []
    for metric, row in comparisons_of(report):
        better, worse, equal = users_better(report, metric, row["b"], row["a"])
        counts = f"<small>{better:,} better, {worse:,} worse, {equal:,} equal</small>"
        interval = (
            "–" if row["low"] is None else f"{decimal(row['low'], sign=True)} to {decimal(row['high'], sign=True)}"
        )
        told = judged(metric, row)
        cells = [
            pair_shown(row),
            f"{metric.label}<small>{metric.direction}</small>",
            f"{decimal(row['difference'], sign=True)}<small>{interval}</small>",
            safe(p_shown(row["p"])),
            f"{row['users']:,}{counts}",
            told if told == NOT_TOLD else f"<strong>{told}</strong>",
        ]
        rows.append(cells)
    if not rows:
        return ""
    head = ["arms", "metric", "difference<small>95 % interval</small>", "p", "users", "the first is"]
    note = faint(
        "A difference is the mean over users of each user's own (macro-F1 and RMSE: of all answers pooled, by the "
        "jackknife), so it is not quite that of two pooled scores above. Interval: paired t over users. p: corrected "
        "for the pairs of a metric (Holm). Better or worse is said only where the interval leaves out zero and "
        "p &lt; 0.05."
    )
    return card(html_table(head, rows, "tight")) + note


def users_section(report: Report) -> str:
    metrics, users = metrics_of(report), report.get("users") or []
    if not metrics or not users:
        return ""
    metric = metrics[0]

    def gain(user: dict[str, Any], against: str) -> float | None:
        arms = user.get("arms") or {}
        return metric.gain(value_of(arms, "stage1+2", metric), value_of(arms, against, metric))

    def place(user: dict[str, Any]) -> tuple[float, str]:
        by_stage2 = gain(user, "stage1")
        return math.inf if by_stage2 is None else -by_stage2, str(user["user_id"])

    users = sorted(users, key=place)
    axis = f"difference in {metric.label} ({metric.unit}), right: better"
    if len(users) > charts.MOST_BARS:
        axis = f"{metric.label} ({metric.unit}), up: better"
    figures = []
    for against, title, colour in (
        ("stage1", "Stage 1 + 2 against stage 1", "stage1+2"),
        ("swapped", "Own private part against a swapped one", "swapped"),
    ):
        gains = [(str(user["user_id"]), gain(user, against)) for user in users]
        known = [(user, value) for user, value in gains if value is not None]
        if known:
            svg = charts.users_chart(f"users-{against}", title, axis, known, ARM_COLOURS[colour])
            better = f"Better for {sum(value > 0 for _, value in known):,} of {len(known):,} users"
            median = decimal(statistics.median(value for _, value in known), sign=True)
            caption = f"{better}; median {median}; grey: worse."
            if len(known) < len(gains):
                caption += f" {len(gains) - len(known):,} without this number."
            figures.append(figure(svg, caption))
    return f"<h2>User by user</h2>{_comparisons(report)}\n{grid(figures)}\n{_users_table(users, metrics)}"


def _users_table(users: list[dict[str, Any]], metrics: list[Metric]) -> str:
    note = f"All {len(users):,} users" if len(users) > 1 else "The one user"
    if len(users) > MOST_USER_ROWS:
        half = MOST_USER_ROWS // 2
        note = f"{half} users who gain most and {half} who gain least, of {len(users):,}"
        users = users[:half] + users[-half:]
    rows = []
    for user in users:
        name = f'<td class="wrap" title="{safe(user["user_id"])}">{safe(user["user_id"], 40)}</td>'
        arms = user.get("arms") or {}
        rows.append([name, *(decimal(value_of(arms, arm, metric), 3) for metric in metrics for arm in ARMS)])
    labels = [metric.label.replace("-", "&#8209;") for metric in metrics]  # no line break inside ROUGE-L
    head = ["user", *(f"{label}<small>{name}</small>" for label in labels for name in ARMS.values())]
    return folded(note, html_table(head, rows, "tight"))
