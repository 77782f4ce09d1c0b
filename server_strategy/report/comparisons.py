"""A run's comparisons of arms for people: by how much two arms differ over users, and whether that can be told.

The numbers are `comparisons` of report.json (`fed.answering.comparisons`): b minus a, a mean over users.
"""

from rich import box
from rich.table import Table
from rich.text import Text

from fed.answering.comparisons import told_apart
from server_strategy.report.tables import ARMS, METRICS, Metric, Report, p_shown, value_of

NOT_TOLD = "not told apart"
_METRICS = {metric.key: metric for metric in METRICS}


def comparisons_of(report: Report) -> list[tuple[Metric, Report]]:
    """(metric, row) of every comparison, pair after pair."""
    return [(_METRICS[row["metric"]], row) for row in report.get("comparisons") or [] if row["metric"] in _METRICS]


def comparison(report: Report, a: str, b: str, metric: Metric) -> Report | None:
    """The row of two arms in one metric."""
    rows = (row for other, row in comparisons_of(report) if other == metric and (row["a"], row["b"]) == (a, b))
    return next(rows, None)


def judged(metric: Metric, row: Report | None) -> str:
    """What b is beside a: "better" and "worse" only where the two can be told apart."""
    if row is None or not told_apart(row["low"], row["high"], row["p"]):
        return NOT_TOLD
    return "better" if (row["difference"] < 0) == metric.lower_is_better else "worse"


def pair_shown(row: Report) -> str:
    return f"{ARMS[row['b']]} − {ARMS[row['a']]}"


def difference_shown(row: Report) -> str:
    """-0.2083 [-0.3012, -0.1154]; without brackets where there is no interval."""
    interval = "" if row["low"] is None else f" [{row['low']:+.4f}, {row['high']:+.4f}]"
    return f"{row['difference']:+.4f}{interval}"


def users_better(report: Report, metric: Metric, arm: str, against: str) -> tuple[int, int, int]:
    """How many users one arm is better, worse and equal for than another, where both were computed."""
    users = [user.get("arms") or {} for user in report.get("users") or []]
    gains = [metric.gain(value_of(arms, arm, metric), value_of(arms, against, metric)) for arms in users]
    known = [gain for gain in gains if gain is not None]
    return sum(gain > 0 for gain in known), sum(gain < 0 for gain in known), sum(gain == 0 for gain in known)


def comparisons_table(report: Report) -> Table:
    """A row per pair of arms and metric: difference, interval, p, users, and what the first is beside the second."""
    table = Table(title="Differences, means over n users [95 % interval]", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title_justify = "left"
    for name in ("arms", "metric", "difference", "p", "n", "the first is"):
        table.add_column(name, justify="right" if name in ("difference", "p", "n") else "left")
    for metric, row in comparisons_of(report):
        cells = (pair_shown(row), metric.label, difference_shown(row), p_shown(row["p"]), f"{row['users']:,}")
        table.add_row(*map(Text, (*cells, judged(metric, row))))
    return table
