"""The charts of the report page, each one small inline SVG string (`svg.py`).

Small figures rather than one large one: the page lays them out in a grid that becomes a single column on a
phone, where a wide chart would shrink until its text cannot be read. An arm has one colour in every chart, from the
Okabe-Ito palette, which colour-blind readers can tell apart.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from server_strategy.report.svg import COLOURS, FAINT, GRID, INK, inline_svg
from server_strategy.report.tables import ARMS, PHASES, Metric, Report, bytes_rows, human_bytes, shown, value_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ARM_COLOURS = {arm: COLOURS[arm.replace("+", "")][0] for arm in ARMS}
MOST_BARS = 60  # one bar a user up to here, a sorted area beyond


def arms_chart(report: Report, metric: Metric) -> str:
    """One metric in all arms: a dot each with its value, and the base value as a dashed line."""

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        values = {arm: value_of(report["arms"], arm, metric) for arm in ARMS}
        finite = {arm: value for arm, value in values.items() if value is not None and math.isfinite(value)}
        low, high = min(finite.values(), default=0.0), max(finite.values(), default=1.0)
        span = (high - low) or abs(high) * 0.1 or 1.0
        axes.set_xlim(low - 0.1 * span, high + 0.32 * span)
        if "base" in finite:
            axes.axvline(finite["base"], color=ARM_COLOURS["base"], linestyle="--", linewidth=1)
        for row, arm in enumerate(ARMS):
            axes.axhline(row, color=GRID, linewidth=1, zorder=0)
            if arm in finite:
                axes.plot(finite[arm], row, "o", color=ARM_COLOURS[arm], markersize=10)
                axes.annotate(f"{finite[arm]:.3f}", (finite[arm], row), (9, 0), textcoords="offset points", va="center")
            else:
                text = "not computed" if values[arm] is None else str(values[arm])
                place = axes.get_yaxis_transform()
                axes.text(0.5, row, text, color=FAINT, va="center", ha="center", style="italic", transform=place)
        axes.set_yticks(range(len(ARMS)), list(ARMS.values()))
        axes.set_ylim(len(ARMS) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=5)
        axes.set_xlabel(f"{metric.label} ({metric.unit})")

    title = f"{metric.label[0].upper()}{metric.label[1:]}: {metric.direction}"
    return inline_svg(f"arms-{metric.key}", title, 2.3, paint)


def users_chart(name: str, title: str, axis: str, gains: Sequence[tuple[str, float]], colour: str) -> str:
    """Gains user by user: named bars in the order given up to 60 users, an area over sorted ranks beyond."""

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        if len(gains) <= MOST_BARS:
            _bars(axes, gains, colour)
            axes.set_xlabel(axis)
        else:
            _area(axes, sorted((gain for _, gain in gains), reverse=True), colour)
            axes.set_ylabel(axis)
            axes.set_xlabel("users, sorted by this difference")

    height = 2.9 if len(gains) > MOST_BARS else 1.2 + 0.17 * max(len(gains), 2)
    return inline_svg(name, title, height, paint)


def _bars(axes: "Axes", gains: Sequence[tuple[str, float]], colour: str) -> None:
    rows = range(len(gains))
    colours = [colour if gain > 0 else COLOURS["base"][0] for _, gain in gains]
    axes.barh(rows, [gain for _, gain in gains], color=colours, height=0.75)
    axes.set_yticks(rows, [shown(user, 14) for user, _ in gains], fontsize=8, parse_math=False)
    axes.set_ylim(len(gains) - 0.5 + (len(gains) < 3), -0.5)
    axes.axvline(0, color=INK, linewidth=1)
    axes.locator_params(axis="x", nbins=6)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _area(axes: "Axes", gains: Sequence[float], colour: str) -> None:
    # A few hundred points draw the same curve as 10,000, in a tenth of the page's size.
    step = max(1, len(gains) // 400)
    ranks = sorted({*range(0, len(gains), step), len(gains) - 1})
    heights = [gains[rank] for rank in ranks]
    numbers = [rank + 1 for rank in ranks]
    axes.fill_between(numbers, [max(height, 0.0) for height in heights], color=colour, linewidth=0)
    axes.fill_between(numbers, [min(height, 0.0) for height in heights], color=COLOURS["base"][0], linewidth=0)
    axes.axhline(0, color=INK, linewidth=1)
    axes.set_xlim(1, len(gains))
    axes.grid(axis="y")


def line_chart(
    name: str,
    title: str,
    points: Sequence[tuple[int, float]],
    *,
    x: str,
    y: str,
    colour: str,
    tiny: bool = False,
) -> str:
    """A number per round or epoch, every point marked; `tiny` numbers in powers of ten."""

    def paint(figure: "Figure") -> None:
        from matplotlib.ticker import MaxNLocator, NullFormatter

        axes = figure.add_subplot(xlabel=x, ylabel=y)
        axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=5, linewidth=1.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.margins(x=0.06, y=0.15)
        values = [value for _, value in points]
        if tiny:
            if min(values) > 0 and max(values) > 10 * min(values):  # else no decade is left to label
                axes.set_yscale("log")
                axes.yaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter("{x:.1e}")
        axes.grid()

    return inline_svg(name, title, 2.5, paint)


def bytes_chart(report: Report) -> str:
    """What crossed, phase by phase and way by way: payload, then what record and wire add to it, stacked."""
    rows = bytes_rows(report)
    largest = max((counts["wire"] for _, _, counts in rows), default=0)
    unit, divisor = next(((unit, 1024**power) for power, unit in ((3, "GiB"), (2, "MiB"), (1, "KiB"))
                          if largest >= 1024**power), ("bytes", 1))  # fmt: skip

    def paint(figure: "Figure") -> None:
        axes = figure.add_subplot()
        for row, (_, _, counts) in enumerate(rows):
            # Flower drops duplicate objects on the wire, which can be less than the record: no layer < 0.
            layers = {"payload": counts["payload"], "record": max(0, counts["record"] - counts["payload"])}
            layers["wire"] = max(0, counts["wire"] - max(counts["payload"], counts["record"]))
            left = 0.0
            for size, count in layers.items():
                axes.barh(row, count / divisor, left=left, color=COLOURS[size][0], height=0.7)
                left += count / divisor
            axes.annotate(human_bytes(counts["wire"]), (left, row), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(range(len(rows)), [f"{PHASES.get(phase, phase)} {way}" for phase, way, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, max(largest / divisor, 1e-9) * 1.3)
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=6)
        axes.grid(axis="x")
        axes.set_xlabel(f"{unit}, all messages together; labels: wire bytes")
        _legend(
            figure,
            {"payload": "payload (tensors)", "record": "+ record (headers)", "wire": "+ wire (messages)"},
        )

    return inline_svg("bytes", "Bytes by phase and direction", 1.3 + 0.25 * max(len(rows), 1), paint)


def _legend(figure: "Figure", names: dict[str, str]) -> None:
    from matplotlib.patches import Patch

    patches: list[Any] = [Patch(color=COLOURS[key][0], label=label) for key, label in names.items()]
    figure.legend(handles=patches, loc="outside lower center", ncols=3, fontsize=8, handlelength=1, columnspacing=1)
