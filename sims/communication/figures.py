"""The figures of `compare_comm.py`: federated traffic, storage, and edge-cloud serving, method by method.

Bars where lengths can be compared on a linear axis; where the range needs a logarithmic one, dots, whose place (not
length) is read, each with its value beside it. matplotlib is imported only when a figure is drawn; no pyplot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console.files import Rows

from server_strategy.report.svg import COLOURS, FAINT, GRID, RC
from server_strategy.report.tables import human_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

UNITS = {1: "B", 1024: "KiB", 1024**2: "MiB", 1024**3: "GiB", 1024**4: "TiB", 1024**5: "PiB"}
# Okabe-Ito, told apart by colour-blind readers too: down, up, hand-out; and three steps of users or of uplinks
PARTS = ("#0072b2", "#56b4e9", "#e69f00")
STEPS = ("#56b4e9", "#0072b2", "#23272e")
MARKERS = ("o", "s", "D")
# a value beside its mark: on white, so that no grid line strikes it through
LABEL: dict[str, Any] = {
    "textcoords": "offset points",
    "fontsize": 9,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.8},
}


def save(draw: Callable[[Figure], None], path: Path, *, height: float, title: str) -> list[Path]:
    """Draw one figure and write it as PNG and SVG beside `path`; returns the two files."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    files = [path.with_suffix(".png"), path.with_suffix(".svg")]
    with matplotlib.rc_context({**RC, "svg.hashsalt": path.name}):
        figure = Figure(figsize=(10, height), layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(title, x=0.01, ha="left")
        draw(figure)
        for file in files:
            figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else {})
    return files


def federated(rows: Rows) -> Callable[[Figure], None]:
    """Scenario a: bytes of a whole federated training, down, up and hand-out stacked."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        largest = max(row["total"] for row in rows)
        scale, unit = _unit(largest)
        names = ("rounds, server to users", "rounds, users to server", "final hand-out to every user")
        for key, name, colour in zip(("rounds_down", "rounds_up", "hand_out"), names, PARTS, strict=True):
            left = [sum(row[k] for k in _before(key)) / scale for row in rows]
            axes.barh(range(len(rows)), [row[key] / scale for row in rows], left=left, color=colour, label=name)
        for place, row in enumerate(rows):
            text = _size(row["total"], scale, unit) if row["total"] else "nothing crosses: every user trains alone"
            _beside(axes, row["total"] / scale, place, text, faint=not row["total"])
        _methods(axes, rows)
        axes.set_xlim(0, max(largest / scale, 1e-9) * 1.18)
        axes.set_xlabel(f"payload of all users together, {unit}")
        _legend(figure)

    return draw


def storage(rows: Rows) -> Callable[[Figure], None]:
    """Scenario b: what one device keeps, and a server that holds every user's private tensors, a dot a crowd."""
    crowds = sorted({row["users"] for row in rows})
    by = {(row["method"], row["users"]): row for row in rows}
    first = [row for row in rows if row["users"] == crowds[0]]

    def draw(figure: Figure) -> None:
        device, server = figure.subplots(1, 2, width_ratios=(1, 1.7))
        scale, unit = _unit(max(row["device"] for row in first))
        shared = [(row["device"] - row["private"]) / scale for row in first]
        device.barh(range(len(first)), shared, color=COLOURS["base"][0], label="shared by all users")
        private = [row["private"] / scale for row in first]
        device.barh(range(len(first)), private, left=shared, color=PARTS[2], label="the user's own")
        for place, row in enumerate(first):
            _beside(device, row["device"] / scale, place, _size(row["device"], scale, unit))
        device.set_xlim(0, max(row["device"] for row in first) / scale * 1.5)
        device.set_xlabel(f"kept by one device, {unit}")
        _methods(device, first)
        for place, row in enumerate(first):
            values = [by[row["method"], users]["server"] for users in crowds]
            if not row["private"]:
                server.plot(values[0], place, "o", color=FAINT, markersize=8)
                _beside(server, values[0], place, f"{human_bytes(values[0])} for any number of users", faint=True)
                continue
            _dots(server, values, place, [f"{users:,} users" for users in crowds], human_bytes)
        byte_axis(server, min(row["server"] for row in rows), max(row["server"] for row in rows))
        server.set_xlabel("kept by a server that holds every user's own\n(logarithmic; grid lines × 32)")
        _methods(server, first)
        server.set_yticklabels([])
        _legend(figure)

    return draw


def serving(rows: Rows) -> Callable[[Figure], None]:
    """Scenario c: seconds of upload for one use of the cloud model, a dot an uplink, and the bytes of a day."""
    uplinks = sorted({row["uplink_mbit_s"] for row in rows})
    by = {(row["method"], row["uplink_mbit_s"]): row for row in rows}
    first = [row for row in rows if row["uplink_mbit_s"] == uplinks[0]]

    def draw(figure: Figure) -> None:
        seconds, day = figure.subplots(1, 2, width_ratios=(2, 1))
        everything = [row["seconds_per_use"] for row in rows if row["use"]]
        seconds.set_xscale("log")
        seconds.set_xlim(min(everything) / 2.5, max(everything) * 2.5)
        scale, unit = _unit(max(row["day"] for row in first))
        day.set_xlim(0, max(max(row["day"] for row in first) / scale, 1) * 1.6)
        day.barh(range(len(first)), [row["day"] / scale for row in first], color=PARTS[0])
        for place, row in enumerate(first):
            if not row["use"]:
                _beside(seconds, min(everything) / 2.5, place, "nothing private to upload", faint=True)
                _beside(day, 0, place, "0 B", faint=True)
                continue
            values = [by[row["method"], uplink]["seconds_per_use"] for uplink in uplinks]
            _dots(seconds, values, place, [f"{uplink:g} Mbit/s uplink" for uplink in uplinks], _seconds)
            _beside(day, row["day"] / scale, place, _size(row["day"], scale, unit))
        seconds.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        seconds.xaxis.set_minor_formatter(lambda value, _: "")
        seconds.set_xlabel("upload at one use, seconds (logarithmic; grid lines × 10)")
        day.set_xlabel(f"upload a day ({first[0]['uses_per_day']:,} uses), {unit}")
        for axes in (seconds, day):
            _methods(axes, first)
        day.set_yticklabels([])
        _legend(figure)

    return draw


def quality(rows: Rows) -> Callable[[Figure], None]:
    """Scenario d: loss and ROUGE-L of each method over the bytes that crossed; left of the line, nothing did."""
    methods = [name for name in dict.fromkeys(row["method"] for row in rows) if name != "base"]
    colours = dict(zip(methods, (*PARTS, "#009e73", "#cc79a7"), strict=False))
    crossed = [row["total_payload"] for row in rows if row["total_payload"]]
    nothing = min(crossed, default=1024) / 24

    def draw(figure: Figure) -> None:
        panels = figure.subplots(1, 2)
        for axes, key, better in zip(panels, ("loss_per_token", "rougeL"), ("lower", "higher"), strict=True):
            # A mark a method and stage, the base a line; each method's two stages joined.
            known = [row for row in rows if row[key] is not None]
            for row in known:
                place = (row["total_payload"] or nothing, row[key])
                if row["method"] == "base":
                    axes.axhline(row[key], color=FAINT, linewidth=1, linestyle=":")
                    axes.annotate("base", place, (-14, 4), color=FAINT, **LABEL)
                    continue
                final = row["stage"] == "after stage 2"
                axes.plot(
                    *place,
                    "o" if final else "^",
                    color=colours[row["method"]],
                    markerfacecolor=colours[row["method"]] if final else "white",
                    markersize=9,
                    linestyle="",
                    label=f"{row['method']}, {row['stage']}",
                )
            for method in methods:
                dots = [row for row in known if row["method"] == method]
                if len(dots) == 2:
                    where = [row["total_payload"] or nothing for row in dots]
                    axes.plot(where, [row[key] for row in dots], color=colours[method], linewidth=1, zorder=1)
            # The axis of bytes, which has no zero: left of the line nothing crossed.
            axes.axvline(nothing * 3, color=GRID, linewidth=1)
            byte_axis(axes, nothing, max(crossed, default=1024))
            shown = [tick for tick in axes.get_xticks() if tick > nothing * 3]
            axes.set_xticks([nothing, *shown], ["nothing", *(human_bytes(int(t)).replace(".00", "") for t in shown)])
            axes.set_xlabel("payload of all users, both ways (logarithmic)")
            axes.set_ylabel(f"{'loss per token' if key == 'loss_per_token' else 'ROUGE-L'} ({better} is better)")
        _legend(figure, columns=4)

    return draw


def _dots(axes: Axes, values: Sequence[float], place: int, labels: Sequence[str], text: Callable[[float], str]) -> None:
    """One method's values on a logarithmic axis: a thin line through dots, the value above each."""
    axes.plot(values, [place] * len(values), color=GRID, linewidth=2, zorder=1)
    for value, label, colour, marker in zip(values, labels, STEPS, MARKERS, strict=True):
        axes.plot(value, place, marker, color=colour, markersize=8, label=label, linestyle="", zorder=4)
        axes.annotate(text(value), (value, place), (0, 7), ha="center", va="bottom", **LABEL)


def _legend(figure: Figure, columns: int = 8) -> None:
    """Each label once, under the panels."""
    named = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(len(named), columns), fontsize=9)


def _before(key: str) -> tuple[str, ...]:
    order = ("rounds_down", "rounds_up", "hand_out")
    return order[: order.index(key)]


def _unit(largest: float) -> tuple[int, str]:
    scale = max((scale for scale in UNITS if scale <= largest), default=1)
    return scale, UNITS[scale]


def _size(count: float, scale: int, unit: str) -> str:
    """In the axis's unit unless that leaves too few digits."""
    return f"{count / scale:.2f} {unit}" if count >= scale / 10 else human_bytes(count)


def _seconds(value: float) -> str:
    return f"{value:.0f} s" if value >= 10 else f"{value:.2g} s" if value >= 0.01 else f"{value * 1000:.2g} ms"


def _methods(axes: Axes, rows: Rows) -> None:
    axes.set_yticks(range(len(rows)), [row["method"] for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.65)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")


def byte_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis of bytes with ticks at 1 KiB, 32 KiB, 1 MiB, …"""
    from matplotlib.ticker import NullLocator

    ticks = [32**power for power in range(11)]
    axes.set_xscale("log", base=2)
    axes.set_xlim(max(low, 1) / 3, high * 4)
    shown = [tick for tick in ticks if max(low, 1) / 3 <= tick <= high * 4]
    axes.set_xticks(shown, [human_bytes(tick).replace(".00", "") for tick in shown])
    axes.xaxis.set_minor_locator(NullLocator())


def _beside(axes: Axes, x: float, y: float, text: str, *, faint: bool = False) -> None:
    colour = FAINT if faint else COLOURS["ink"][0]
    axes.annotate(text, (x, y), (8, 0), va="center_baseline", color=colour, **LABEL)
