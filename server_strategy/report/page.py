"""A finished run as one HTML file that needs nothing else: no script, no font, no request to anywhere.

The numbers come from the dictionary that becomes `report.json`, the charts from `charts.py`, the words from
`tables.py` and `verdict.py`. Every string from outside (user ids, settings, names) is escaped, and a content
security policy forbids scripts and loads should that ever fail. Deliberately absent: anything interactive beyond
<details>.
"""

import math
from pathlib import Path

from fed.atomic_write import write_text
from server_strategy.report import charts
from server_strategy.report.charts import ARM_COLOURS
from server_strategy.report.html import (
    card,
    counted,
    decimal,
    document,
    dot,
    duration,
    faint,
    figure,
    folded,
    grid,
    html_facts,
    html_table,
    safe,
)
from server_strategy.report.page_users import users_section
from server_strategy.report.tables import (
    ARMS,
    PHASES,
    SIZES,
    WAYS,
    Report,
    best_arms,
    bytes_rows,
    bytes_total,
    human_bytes,
    metrics_of,
    value_of,
)
from server_strategy.report.verdict import verdict


def write_page(report: Report, path: Path) -> None:
    """Write the report as one self-contained HTML file; a reader sees the old file or the new, never half."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _page(report))


def _page(report: Report) -> str:
    title = f"{report.get('method')} on {(report.get('data') or {}).get('task')}"
    sections = (_header, _arms, users_section, _training, _bytes, _parameters, _details)
    return document(title, "\n".join(section(report) for section in sections))


def _header(report: Report) -> str:
    model, data = report.get("base_model") or {}, report.get("data") or {}
    size = f", {model['parameters']:,} parameters" if model.get("parameters") else ""
    facts = [
        ("app", safe(report.get("app"))),
        ("method and engine", f"{safe(report.get('method'))}, {safe(report.get('engine'))}"),
        ("task and data", f"{safe(data.get('task'))}, {safe(data.get('source'))}"),
        ("users", f"{counted(data.get('users'))} ({counted(data.get('train_items'))} training items, "
                  f"{counted(data.get('queries'))} queries)"),
        ("base model, frozen and shared", f"{safe(model.get('name'))}{size}"),
        ("dtype and device", f"{safe(model.get('dtype'))} on {safe(model.get('device'))}"),
        ("run time", duration((report.get("seconds") or {}).get("total"))),
        ("git commit and seed", f"{safe(report.get('git'))}, {safe(report.get('seed'))}"),
    ]  # fmt: skip
    sentences = "".join(f"<p>{safe(sentence, 1000)}</p>" for sentence in verdict(report))
    title = safe(f"{report.get('method')} on {data.get('task')}")
    pooled = (report.get("settings") or {}).get("stage1") == "pooled"
    how = (
        "on all users' rows in one place (pooled: its bytes are the hand-out's alone)"
        if pooled
        else "in federated rounds"
    )
    what = faint(
        "One run of the simulator: all users share a frozen language model. Stage 1 trains a collective part "
        f"{how}; stage 2 trains a private part for each user, which stays on the user's client."
    )
    caution = faint("One seed: the intervals speak of other users, not of another training run.")
    return (
        f"<header><h1>{title}: federated personalization</h1>\n"
        f'{what}{html_facts(facts)}</header>\n<section class="card verdict">{sentences}{caution}</section>'
    )


def _arms(report: Report) -> str:
    metrics = metrics_of(report)
    rows = []
    for arm, name in ARMS.items():
        cells = [f"{dot(arm)}{name}"]
        for metric in metrics:
            value, base = value_of(report["arms"], arm, metric), value_of(report["arms"], "base", metric)
            if value is None:
                cells.append('<td class="faint">not computed</td>')
                continue
            delta = ""
            if arm != "base" and base is not None:
                delta = f"<small>{decimal(value - base, sign=True)}</small>"
            css = ' class="best"' if arm in best_arms(report, metric) else ""
            cells.append(f'<td{css} title="{value!r}">{decimal(value)}{delta}</td>')
        rows.append(cells)
    for name, scores in (report.get("synthetic_ceilings") or {}).items():
        numbers = (scores.get(metric.key) for metric in metrics)
        rows.append([f'<td class="faint">ceiling: {safe(name)}</td>', *map(decimal, numbers)])
    head = ["arm", *(f"{metric.label}<small>{metric.direction}</small>" for metric in metrics)]
    legend = faint(
        "Small: difference to base. Shaded: best. Swapped: stage 1 and another user's private part, which is "
        "worse than one's own if that is personal. Axes do not start at zero; the dashed line is the base. Ceilings, "
        "of synthetic users: what answers score that repeat the query, that are in everybody's words, and that have "
        "the user's own habits."
    )
    figures = grid(figure(charts.arms_chart(report, metric)) for metric in metrics)
    return f"<h2>Quality</h2>{card(html_table(head, rows))}\n{figures}\n{legend}"


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
        points = [(int(row[step]), float(row[key])) for row in steps if row.get(key) is not None]
        points = [(number, value) for number, value in points if math.isfinite(value)]
        if points:
            name, colour, tiny = f"{key}-{step}", ARM_COLOURS[arm], key != "loss"
            figures.append(figure(charts.line_chart(name, title, points, x=step, y=axis, colour=colour, tiny=tiny)))
    seconds = report.get("seconds") or {}
    rest = max(0.0, (seconds.get("total") or 0) - sum(seconds.get(phase) or 0 for phase in PHASES))
    times = [(name, duration(seconds.get(phase))) for phase, name in PHASES.items()]
    times += [("the rest (start, loading)", duration(rest)), ("total", duration(seconds.get("total")))]
    if "clients" in seconds:
        times.append(("clients at work, in the three", duration(seconds["clients"])))
    html = f"<h2>Training and time</h2>{grid(figures)}\n{card(html_facts(times, 'short'))}"
    if rounds:
        rows = []
        for row in rounds:
            error = row.get("orthogonality_error")
            cells = [
                counted(row.get("users")),
                decimal(row.get("loss")),
                "–" if error is None else f"{error:.1e}",
            ]
            rows.append([counted(row["round"]), *cells, duration(row.get("seconds"))])
        head = ["round", "users", "training loss per token", "|R Rᵀ − I|", "time"]
        html += folded(f"All {len(rounds):,} rounds" if len(rounds) > 1 else "The one round", html_table(head, rows))
    return html


def _bytes(report: Report) -> str:
    rows = []
    every = [*bytes_rows(report), ("all phases", "", bytes_total(report))]
    for phase, way, counts in every:
        cells = [f"{safe(PHASES.get(phase, phase))} {safe(way)}", f"{counts['messages']:,}"]
        for size in SIZES:
            exact = f"{counts[size]:,} B"
            cells.append(f'<td title="{exact}">{human_bytes(counts[size])}<small>{exact}</small></td>')
        rows.append(cells)
    table = html_table(["phase and direction", "messages", *SIZES], rows, "tight")
    legend = faint(
        "Payload: tensor bytes. Record: with array headers and keys. Wire: all that Flower ships, settings "
        "and metrics too. Users packed into one message count one by one. "
        + "; ".join(f"{way}: {meaning}" for way, meaning in WAYS.items()).capitalize()
        + "."
    )
    figures = [figure(charts.bytes_chart(report))] if len(every) > 1 else []
    return f"<h2>Bytes</h2>{grid([*figures, card(table)])}\n{legend}"


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
    return f"<h2>Parameters</h2>{card(html_table(head, rows))}"


def _details(report: Report) -> str:
    settings = report.get("settings") or {}
    names = sorted(settings, key=str)
    rows = [[safe(name), f'<td class="wrap">{safe(settings[name], 1000)}</td>'] for name in names]
    model = report.get("base_model") or {}
    facts = html_facts(
        (safe(key).replace("_", " "), safe("; ".join(map(str, value))) if isinstance(value, list) else counted(value))
        for key, value in model.items()
    )
    table = html_table(["setting", "value"], rows, "words")
    return f"<h2>Settings</h2>{folded(f'Base model and {len(rows)} settings', facts + table)}"
