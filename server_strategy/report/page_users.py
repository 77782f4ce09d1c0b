"""The page's part on users: who gains by the private part, and by how much."""

import math
import statistics
from typing import Any

from server_strategy.report import charts
from server_strategy.report.charts import ARM_COLOURS
from server_strategy.report.html import card, decimal, figure, folded, grid, html_table, safe
from server_strategy.report.tables import ARMS, COMPARISONS, Metric, Report, metrics_of, users_better, value_of

MOST_USER_ROWS = 200  # in the users table; beyond, those who gain most and least


def _checks(report: Report, metrics: list[Metric]) -> str:
    """For each expected order and metric: does it hold on average, and for how many users."""
    rows = []
    for arm, against in COMPARISONS:
        cells = [f"{ARMS[arm]} better than {ARMS[against]}?"]
        for metric in metrics:
            values = (value_of(report["arms"], one, metric) for one in (arm, against))
            gain = metric.gain(*values)
            better, worse, equal = users_better(report, metric, arm, against)
            users = f"<small>users: {better:,} better, {worse:,} worse, {equal:,} equal</small>"
            answer = "not computed" if gain is None else "yes" if gain > 0 else "<strong>no</strong>"
            cells.append(answer + (users if better + worse + equal else ""))
        rows.append(cells)
    return html_table(["on average, and user by user", *(metric.label for metric in metrics)], rows, "words")


def users_section(report: Report) -> str:
    metrics, users = metrics_of(report), report.get("users") or []
    if not metrics or not users:
        return ""
    metric = metrics[0]

    def gain(user: dict[str, Any], against: str) -> float | None:
        arms = user.get("arms") or {}
        return metric.gain(value_of(arms, "stage1+2", metric), value_of(arms, against, metric))

    def place(user: dict[str, Any]) -> tuple[float, str]:
        own = gain(user, "stage1")
        return math.inf if own is None else -own, str(user["user_id"])

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
    checks = card(_checks(report, metrics))
    return f"<h2>User by user</h2>{checks}\n{grid(figures)}\n{_users_table(users, metrics)}"


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
