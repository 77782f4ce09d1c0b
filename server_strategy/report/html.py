"""The pieces that a page is made of: one HTML document that needs nothing else, and its parts.

Every string from outside is escaped (`safe`), and a content security policy forbids scripts and loads should that ever
fail.
"""

import json
from collections.abc import Iterable
from html import escape
from typing import Any

from server_strategy.report.svg import COLOURS
from server_strategy.report.tables import shown

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
CSS = """
:root{color-scheme:light dark;--page:#f4f5f7;--card:#fff;--good:#e0f3ec;LIGHT}
@media (prefers-color-scheme:dark){:root{--page:#14171b;--card:#1e2228;--good:#17382f;DARK}}
*{box-sizing:border-box}
body,svg text{font-family:system-ui,"Segoe UI",Roboto,"DejaVu Sans",sans-serif!important}
body{margin:0;background:var(--page);color:var(--ink);font-size:16px;line-height:1.5}
main{max-width:1200px;margin:auto;padding:24px 20px 48px}
h1{font-size:1.7rem;line-height:1.25;margin:0 0 .3em}h2{font-size:1.2rem;margin:2em 0 .6em}
p{margin:.4em 0}.faint,figcaption{color:var(--faint);font-size:.875rem}
.card{background:var(--card);border:1px solid var(--grid);border-radius:8px;padding:14px 16px}
.verdict{border-left:5px solid var(--faint);margin:1.2em 0;font-size:1.06rem}
.verdict p:first-child{font-weight:600}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,240px),1fr));gap:12px 24px;margin:1em 0}
dl.short{grid-template-columns:repeat(auto-fit,minmax(130px,1fr));margin:0}
dt{color:var(--faint);font-size:.8rem}dd{margin:0;overflow-wrap:anywhere}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:14px}
.grid,.card+.grid,.grid+.card{margin-top:14px}.grid{align-items:start}
figure{margin:0}figure.card{padding:10px}figcaption{margin-top:4px}
svg{display:block;width:100%;height:auto;max-width:560px;margin:auto}
svg *{stroke-linejoin:round;stroke-linecap:butt}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 8px;border-bottom:1px solid var(--grid);text-align:right;vertical-align:top}
th,td{white-space:nowrap}.tight{font-size:.85rem}.tight th,.tight td{padding:4px 6px}
th{font-weight:600}thead th{color:var(--faint);font-size:.875rem}tr:last-child>*{border-bottom:0}
th:first-child,td:first-child,.words td,.words th{text-align:left}
td small,th small{display:block;color:var(--faint);font-weight:400}
td.best{background:var(--good);font-weight:700}
.tight thead th{white-space:normal;min-width:4em}
td.wrap,th.wrap{white-space:normal;overflow-wrap:anywhere;min-width:11em;text-align:left}
.dot{display:inline-block;width:.8em;height:.8em;border-radius:50%;margin-right:.5em}
details{margin-top:1em}summary{cursor:pointer;font-weight:600}
.words td{white-space:normal;min-width:7em}
@media (max-width:600px){table{font-size:.85rem}main{padding:16px 12px 32px}dl{grid-template-columns:1fr 1fr}
th,td{padding:5px 6px}.words td:first-child,.tight td:first-child{white-space:normal}
td.wrap,th.wrap{min-width:8em}.card{padding:10px}}
"""


def document(title: str, body: str) -> str:
    """A whole HTML document in the style of all our pages; `title` is a text, `body` is HTML."""
    light, dark = (";".join(f"--{name}:{pair[side]}" for name, pair in COLOURS.items()) for side in (0, 1))
    css = CSS.replace("LIGHT", light).replace("DARK", dark)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{safe(title)}</title>\n<style>{css}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def safe(value: object, limit: int = 200) -> str:
    """Any value as safe HTML text: printable, cut to `limit`, escaped."""
    plain = isinstance(value, str | int | float) or value is None
    return escape(shown(value if plain else json.dumps(value, default=str), limit))


def decimal(value: float | None, digits: int = 4, sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def html_table(head: Iterable[str], rows: Iterable[Iterable[str]], css: str = "") -> str:
    """A table of cells that are HTML already; a cell that starts with a tag of its own keeps it."""
    cells = "".join(cell if cell.startswith("<th") else f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        "<tr>" + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    table = f"<thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{css}">{table}</table></div>'


def html_facts(facts: Iterable[tuple[str, str]], css: str = "") -> str:
    pairs = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="{css}">{pairs}</dl>'


def card(content: str) -> str:
    return f'<div class="card">{content}</div>'


def grid(parts: Iterable[str]) -> str:
    return f'<div class="grid">{"".join(parts)}</div>'


def faint(text: str) -> str:
    return f'<p class="faint">{text}</p>'


def folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{card(content)}</details>"


def figure(svg: str, caption: str = "") -> str:
    caption = caption and f"<figcaption>{caption}</figcaption>"
    return f'<figure class="card">{svg}{caption}</figure>'


def dot(arm: str) -> str:
    return f'<span class="dot" style="background:var(--{arm.replace("+", "")})"></span>'


def counted(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else safe(value)
