"""A finished run as one HTML file that needs nothing else: no script, no font, no request to anywhere.

The numbers come from the dictionary that becomes `report.json`, the charts from `charts.py`, the words from
`tables.py`. Every string from outside (user ids, settings, names) is escaped, and a content security policy
forbids scripts and loads should that ever fail. Deliberately absent: anything interactive beyond <details>.
"""

import json
import math
import os
import statistics
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from server_strategy import charts
from server_strategy.charts import ARM_COLOURS, COLOURS, shown
from server_strategy.tables import (
    ARMS,
    COMPARISONS,
    PHASES,
    SIZES,
    WAYS,
    Metric,
    Report,
    best_arms,
    bytes_rows,
    bytes_total,
    human_bytes,
    metrics_of,
    users_better,
    value_of,
    verdict,
)

MOST_USER_ROWS = 200  # in the users table; beyond, those who gain most and least

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


def write_page(report: Report, path: Path) -> None:
    """Write the report as one self-contained HTML file; a reader sees the old file or the new, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(_page(report), encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _page(report: Report) -> str:
    title = f"{report.get('method')} on {(report.get('data') or {}).get('task')}"
    sections = (_header, _arms, _users, _training, _bytes, _parameters, _details)
    return document(title, "\n".join(section(report) for section in sections))


def document(title: str, body: str) -> str:
    """A whole HTML document in the style of all our pages; `title` is a text, `body` is HTML."""
    light, dark = (";".join(f"--{name}:{pair[side]}" for name, pair in COLOURS.items()) for side in (0, 1))
    css = CSS.replace("LIGHT", light).replace("DARK", dark)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{css}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _text(value: object, limit: int = 200) -> str:
    """Any value as safe HTML text: printable, cut to `limit`, escaped."""
    plain = isinstance(value, str | int | float) or value is None
    return escape(shown(value if plain else json.dumps(value, default=str), limit))


def _number(value: float | None, digits: int = 4, sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{seconds:.1f} s"
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], css: str = "") -> str:
    """A table of cells that are HTML already; a cell that starts with a tag of its own keeps it."""
    cells = "".join(cell if cell.startswith("<th") else f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        "<tr>" + "".join(cell if cell.startswith("<td") else f"<td>{cell}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    table = f"<thead><tr>{cells}</tr></thead>\n<tbody>{body}</tbody>"
    return f'<div class="scroll"><table class="{css}">{table}</table></div>'


def _facts(facts: Iterable[tuple[str, str]], css: str = "") -> str:
    pairs = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="{css}">{pairs}</dl>'


def _card(content: str) -> str:
    return f'<div class="card">{content}</div>'


def _grid(parts: Iterable[str]) -> str:
    return f'<div class="grid">{"".join(parts)}</div>'


def _note(text: str) -> str:
    return f'<p class="faint">{text}</p>'


def _folded(summary: str, content: str) -> str:
    return f"<details><summary>{summary}</summary>{_card(content)}</details>"


def _figure(svg: str, caption: str = "") -> str:
    caption = caption and f"<figcaption>{caption}</figcaption>"
    return f'<figure class="card">{svg}{caption}</figure>'


def _dot(arm: str) -> str:
    return f'<span class="dot" style="background:var(--{arm.replace("+", "")})"></span>'


def _header(report: Report) -> str:
    model, data = report.get("base_model") or {}, report.get("data") or {}
    size = f", {model['parameters']:,} parameters" if model.get("parameters") else ""
    facts = [
        ("app", _text(report.get("app"))),
        ("method and engine", f"{_text(report.get('method'))}, {_text(report.get('engine'))}"),
        ("task and data", f"{_text(data.get('task'))}, {_text(data.get('source'))}"),
        ("users", f"{_count(data.get('users'))} ({_count(data.get('train_items'))} training items, "
                  f"{_count(data.get('queries'))} queries)"),
        ("base model, frozen and shared", f"{_text(model.get('name'))}{size}"),
        ("dtype and device", f"{_text(model.get('dtype'))} on {_text(model.get('device'))}"),
        ("run time", _duration((report.get("seconds") or {}).get("total"))),
        ("git commit and seed", f"{_text(report.get('git'))}, {_text(report.get('seed'))}"),
    ]  # fmt: skip
    sentences = "".join(f"<p>{_text(sentence, 1000)}</p>" for sentence in verdict(report))
    title = _text(f"{report.get('method')} on {data.get('task')}")
    what = _note(
        "One run of the simulator: all users share a frozen language model. Stage 1 trains a collective part "
        "in federated rounds; stage 2 trains a private part for each user, which stays on the user's client."
    )
    caution = _note("One seed: with few users and queries, a small difference can be chance.")
    return (
        f"<header><h1>{title}: federated personalization</h1>\n"
        f'{what}{_facts(facts)}</header>\n<section class="card verdict">{sentences}{caution}</section>'
    )


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _arms(report: Report) -> str:
    metrics = metrics_of(report)
    rows = []
    for arm, name in ARMS.items():
        cells = [f"{_dot(arm)}{name}"]
        for metric in metrics:
            value, base = value_of(report["arms"], arm, metric), value_of(report["arms"], "base", metric)
            if value is None:
                cells.append('<td class="faint">not computed</td>')
                continue
            delta = ""
            if arm != "base" and base is not None:
                delta = f"<small>{_number(value - base, sign=True)}</small>"
            css = ' class="best"' if arm in best_arms(report, metric) else ""
            cells.append(f'<td{css} title="{value!r}">{_number(value)}{delta}</td>')
        rows.append(cells)
    head = ["arm", *(f"{metric.label}<small>{metric.direction}</small>" for metric in metrics)]
    legend = _note(
        "Small: difference to base. Shaded: best. Swapped: stage 1 and another user's private part, which is "
        "worse than one's own if that is personal. Axes do not start at zero; the dashed line is the base."
    )
    figures = _grid(_figure(charts.arms_chart(report, metric)) for metric in metrics)
    return f"<h2>Quality</h2>{_card(_table(head, rows))}\n{figures}\n{legend}"


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
    return _table(["on average, and user by user", *(metric.label for metric in metrics)], rows, "words")


def _users(report: Report) -> str:
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
            median = _number(statistics.median(value for _, value in known), sign=True)
            caption = f"{better}; median {median}; grey: worse."
            if len(known) < len(gains):
                caption += f" {len(gains) - len(known):,} without this number."
            figures.append(_figure(svg, caption))
    checks = _card(_checks(report, metrics))
    return f"<h2>User by user</h2>{checks}\n{_grid(figures)}\n{_users_table(users, metrics)}"


def _users_table(users: list[dict[str, Any]], metrics: list[Metric]) -> str:
    note = f"All {len(users):,} users" if len(users) > 1 else "The one user"
    if len(users) > MOST_USER_ROWS:
        half = MOST_USER_ROWS // 2
        note = f"{half} users who gain most and {half} who gain least, of {len(users):,}"
        users = users[:half] + users[-half:]
    rows = []
    for user in users:
        name = f'<td class="wrap" title="{_text(user["user_id"])}">{_text(user["user_id"], 40)}</td>'
        arms = user.get("arms") or {}
        rows.append([name, *(_number(value_of(arms, arm, metric), 3) for metric in metrics for arm in ARMS)])
    labels = [metric.label.replace("-", "&#8209;") for metric in metrics]  # no line break inside ROUGE-L
    head = ["user", *(f"{label}<small>{name}</small>" for label in labels for name in ARMS.values())]
    return _folded(note, _table(head, rows, "tight"))


def _training(report: Report) -> str:
    rounds = report.get("rounds") or []
    epochs = report.get("stage2_losses") or []
    loss, error = "loss per token (nats)", "|R Rᵀ − I|"
    figures = []
    for steps, step, key, title, axis, arm in (
        (rounds, "round", "loss", "Stage 1 training loss: lower is better", loss, "stage1"),
        (epochs, "epoch", "loss", "Stage 2 training loss: lower is better", loss, "stage1+2"),
        (rounds, "round", "orthogonality_error", "R off orthogonal: lower is better", error, "base"),
    ):
        points = [(int(one[step]), float(one[key])) for one in steps if one.get(key) is not None]
        points = [(number, value) for number, value in points if math.isfinite(value)]
        if points:
            name, colour, tiny = f"{key}-{step}", ARM_COLOURS[arm], key != "loss"
            figures.append(_figure(charts.line_chart(name, title, points, x=step, y=axis, colour=colour, tiny=tiny)))
    seconds = report.get("seconds") or {}
    rest = max(0.0, (seconds.get("total") or 0) - sum(seconds.get(phase) or 0 for phase in PHASES))
    times = [(name, _duration(seconds.get(phase))) for phase, name in PHASES.items()]
    times += [("the rest (start, loading)", _duration(rest)), ("total", _duration(seconds.get("total")))]
    if "clients" in seconds:
        times.append(("clients at work, in the three", _duration(seconds["clients"])))
    html = f"<h2>Training and time</h2>{_grid(figures)}\n{_card(_facts(times, 'short'))}"
    if rounds:
        rows = []
        for one in rounds:
            error = one.get("orthogonality_error")
            cells = [
                _count(one.get("users")),
                _number(one.get("loss")),
                "–" if error is None else f"{error:.1e}",
            ]
            rows.append([_count(one["round"]), *cells, _duration(one.get("seconds"))])
        head = ["round", "users", "training loss per token", "|R Rᵀ − I|", "time"]
        html += _folded(f"All {len(rounds):,} rounds" if len(rounds) > 1 else "The one round", _table(head, rows))
    return html


def _bytes(report: Report) -> str:
    rows = []
    every = [*bytes_rows(report), ("all phases", "", bytes_total(report))]
    for phase, way, counts in every:
        cells = [f"{_text(PHASES.get(phase, phase))} {_text(way)}", f"{counts['messages']:,}"]
        for size in SIZES:
            exact = f"{counts[size]:,} B"
            cells.append(f'<td title="{exact}">{human_bytes(counts[size])}<small>{exact}</small></td>')
        rows.append(cells)
    table = _table(["phase and direction", "messages", *SIZES], rows, "tight")
    legend = _note(
        "Payload: tensor bytes. Record: with array headers and keys. Wire: all that Flower ships, settings "
        "and metrics too. Users packed into one message count one by one. "
        + "; ".join(f"{way}: {meaning}" for way, meaning in WAYS.items()).capitalize()
        + "."
    )
    figures = [_figure(charts.bytes_chart(report))] if len(every) > 1 else []
    return f"<h2>Bytes</h2>{_grid([*figures, _card(table)])}\n{legend}"


def _parameters(report: Report) -> str:
    parameters = report.get("parameters") or {}
    # Stage 2 may send the collective part down; what must be empty is everything that goes up from then on.
    after = [counts for phase, way, counts in bytes_rows(report) if phase != "stage1" and way == "up"]
    after = [counts for counts in after if counts["messages"]]
    up = sum(max(counts["payload"], counts["record"]) for counts in after)
    private = "never leaves the client: 0 array bytes on the wire"
    if up:
        private = f"<strong>{up:,} array bytes went up after stage 1: it may have left the client</strong>"
    elif not after:
        private = "no bytes of stage 2 were counted"
    base = parameters.get("base") or 0
    rows = []
    for key, name, fate in (
        ("stage1", "stage 1, collective", "federated: travels every round"),
        ("stage2", "stage 2, private, per user", private),
        ("base", "base model", "frozen, shared, never sent"),
    ):
        count = parameters.get(key)
        share = f"{100 * count / base:.4f} %" if count is not None and base else "–"
        part = f'<td class="wrap">{name}<small>{fate}</small></td>'
        rows.append([part, "–" if count is None else f"{count:,}", share])
    head = ["part, and where it goes", "count", "of base"]
    return f"<h2>Parameters</h2>{_card(_table(head, rows))}"


def _details(report: Report) -> str:
    settings = report.get("settings") or {}
    names = sorted(settings, key=str)
    rows = [[_text(name), f'<td class="wrap">{_text(settings[name], 1000)}</td>'] for name in names]
    model = report.get("base_model") or {}
    facts = _facts((_text(key).replace("_", " "), _count(value)) for key, value in model.items())
    table = _table(["setting", "value"], rows, "words")
    return f"<h2>Settings</h2>{_folded(f'Base model and {len(rows)} settings', facts + table)}"
