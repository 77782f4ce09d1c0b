"""Drawings as PNG and SVG files and inside a page, and tables for a terminal and for a page.

A drawing's colours are `server_strategy.report.svg.COLOURS`, which a page replaces by those of a dark scheme; told
apart by colour-blind readers too, and by marker or dash besides. Heat maps are viridis's, the same in both schemes.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table as RichTable
from rich.text import Text

from server_strategy.report.html import figure, html_table, safe
from server_strategy.report.svg import COLOURS, RC, WIDTH, inline_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OWN, OTHER, DIFFERENCE, CHANCE, INK, FAINT, GRID = (
    COLOURS[name][0] for name in ("stage1", "swapped", "stage12", "base", "ink", "faint", "grid")
)
SERIES = (OWN, OTHER, DIFFERENCE, COLOURS["payload"][0], CHANCE, COLOURS["record"][0])
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p", "h")
FILE_LETTERS, PAGE_LETTERS = 54, 40  # of a line of a title that fits the width, at the two sizes


@dataclass(frozen=True)
class Drawing:
    """A figure before it is drawn.

    Attributes:
        name: of its files.
        title: what it shows, and of what: a line break between the two.
        height: inches, at a width of 4.5.
    """

    name: str
    title: str
    height: float
    paint: Callable[[Figure], None]

    def lines(self, letters: int) -> str:
        """The title, broken into lines of so many letters."""
        return "\n".join(line for part in self.title.split("\n") for line in textwrap.wrap(part, letters))


@dataclass(frozen=True)
class Table:
    """Rows of texts under a head; the first column is left-aligned."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def save(drawing: Drawing, folder: Path) -> list[Path]:
    """Write a drawing as PNG and SVG; equal drawings give equal files. Returns both."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    files = [folder / f"{drawing.name}.png", folder / f"{drawing.name}.svg"]
    with matplotlib.rc_context({**RC, "svg.hashsalt": drawing.name}):
        sheet = Figure(figsize=(WIDTH, drawing.height), layout="constrained", facecolor="white")
        FigureCanvasAgg(sheet)
        sheet.suptitle(drawing.lines(FILE_LETTERS), x=0.01, ha="left", fontsize=9)
        drawing.paint(sheet)
        for file in files:
            sheet.savefig(file, dpi=130, metadata={"Date": None} if file.suffix == ".svg" else {})
    return files


def inline(drawing: Drawing) -> str:
    """A drawing as a figure of a page; of what it is stands under it."""
    title, _, of = drawing.title.partition("\n")
    shown = replace(drawing, title=title).lines(PAGE_LETTERS)

    def paint(sheet: Any) -> None:
        drawing.paint(sheet)
        sheet.get_layout_engine().set(w_pad=0.14)  # a browser's letters are wider: a label at the edge stays whole

    return figure(inline_svg(drawing.name, shown, drawing.height, paint), safe(of))


def as_rich(table: Table) -> RichTable:
    shown = RichTable(title=Text(table.title), title_justify="left")
    for place, name in enumerate(table.head):
        shown.add_column(Text(name), justify="right" if place else "left")
    for row in table.rows:
        shown.add_row(*map(Text, row))
    return shown


def as_html(table: Table) -> str:
    rows = ([safe(cell) for cell in row] for row in table.rows)
    return f"<h3>{safe(table.title)}</h3>" + html_table([safe(name) for name in table.head], rows, "tight")


def legend(sheet: Figure, columns: int = 2) -> None:
    """Each label once, under the panels."""
    named = {
        label: handle for axes in sheet.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    sheet.legend(named.values(), named.keys(), loc="outside lower center", ncols=columns, fontsize=9)


def logarithmic(axes: Axes, base: int = 10) -> None:
    """A logarithmic axis of x whose ticks are plain numbers."""
    axes.set_xscale("log", base=base)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda *_: "")


def grid(axes: Axes) -> None:
    axes.grid(color=GRID)
    axes.set_axisbelow(True)


def number(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")
