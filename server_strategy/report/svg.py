"""One figure as a small inline SVG string for an HTML page: the colours and settings of all charts, and the clean-up.

Colours are written as CSS variables (`COLOURS` has their values), so they follow a dark scheme. Text stays text; equal
figures give equal bytes.

matplotlib is imported inside the functions, since a server that writes no page does not need it; `pyplot`,
with its global state, is not used at all.
"""

import io
import re
import warnings
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# name: (on a light background, on a dark one). matplotlib writes the first, `_retag` makes it var(--name).
COLOURS = {
    "ink": ("#23272e", "#e4e6ea"),
    "faint": ("#667080", "#a0a8b4"),
    "grid": ("#dde1e6", "#3a404a"),
    "base": ("#7d7d7d", "#a9a9a9"),
    "stage1": ("#0072b2", "#56b4e9"),
    "stage12": ("#009e73", "#2fc79b"),
    "swapped": ("#d55e00", "#f08a3c"),
    "payload": ("#59358c", "#b79be6"),
    "record": ("#b06fa8", "#d79ccf"),
    "wire": ("#dcc3dc", "#6d5a75"),
}
INK, FAINT, GRID = (COLOURS[name][0] for name in ("ink", "faint", "grid"))
WIDTH = 4.5  # inches, 324 units of the SVG: 10-point text is 10 px where a chart is 324 px wide, as on a phone

RC: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "axes.labelsize": 10,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": GRID,
    "axes.axisbelow": True,
    "legend.frameon": False,
}


def inline_svg(name: str, title: str, height: float, paint: Callable[["Figure"], None]) -> str:
    """Draw one figure with our settings and return it as an SVG element to put into an HTML page."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    out = io.StringIO()
    with matplotlib.rc_context({**RC, "svg.hashsalt": name}), warnings.catch_warnings():
        # A user id in a script that the layout font lacks: the browser has its own font for it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.suptitle(title, x=0.01, ha="left")
        paint(figure)
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\n?|<style.*?</style>", "", svg, flags=re.DOTALL)  # its style would hit the whole page
    svg = re.sub(r"<[^>]+>", _retag, svg)  # tags only: text has its own < escaped
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def _retag(match: re.Match[str]) -> str:
    """One SVG tag for use inside HTML: no namespaces, no ids that nothing refers to, colours as variables."""
    tag = re.sub(r' xmlns(:\w+)?="[^"]*"', "", match[0])
    tag = re.sub(r'^<g id="[\w.]+"', "<g", tag)
    for name, (light, _) in COLOURS.items():
        tag = tag.replace(light, f"var(--{name})")
    return tag
