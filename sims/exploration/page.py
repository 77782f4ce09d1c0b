"""`explore.py report`: one page of all that OUT holds, self-contained, light and dark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from exploration.figures import Drawing, as_html, inline
from exploration.options import caption
from fed import strict_json
from fed.atomic_write import write_text
from server_strategy.report.html import document, faint, grid, html_facts, safe

SUMMARY = "one page of all results in OUT"
TITLE = "What the vectors show"
LEAD = (
    "A user's δ-vector is what the user's own history before a query does to the hidden state at the query's last "
    "token. The control is another user's history before the same query: what both do, any context does."
)


def write(out: Path, commands: Mapping[str, ModuleType]) -> Path:
    """Write OUT/report.html. Raises ValueError where OUT holds no result."""
    results = _results(out, commands)
    if not results:
        raise ValueError(f"{out} must hold a result of {', '.join(commands)}; run one of them first")
    parts = [f"<h1>{TITLE}</h1>", f"<p>{safe(LEAD, 1000)}</p>"]
    for task, of_task in results.items():
        parts.append(f"<h2>{safe(task)}</h2>")
        for command, result in of_task.items():
            parts += _section(command, commands[command], result)
    return write_text(out / "report.html", document(TITLE, "\n".join(parts)))


def _results(out: Path, commands: Mapping[str, ModuleType]) -> dict[str, dict[str, Any]]:
    """task -> subcommand -> its result, in the order of the subcommands."""
    found: dict[str, dict[str, Any]] = {}
    for folder in sorted(path for path in out.glob("*") if path.is_dir()):
        for command in commands:
            file = folder / f"{command}.json"
            if file.is_file():
                try:
                    result = strict_json.loads(file.read_text(encoding="utf-8"))
                except ValueError as error:
                    raise ValueError(f"{file} must be JSON, and is damaged ({error}); run {command} again") from None
                found.setdefault(folder.name, {})[command] = result
    return found


def _section(command: str, module: ModuleType, result: dict[str, Any]) -> list[str]:
    of = result["of"]
    facts = [(safe(name.replace("_", " ")), safe(value)) for name, value in of.items() if not isinstance(value, dict)]
    figures = [inline(_named_for(drawing, of["task"])) for drawing in module.drawings(result)]
    return [
        f"<h3>{safe(command)}: {safe(module.SUMMARY)}</h3>",
        faint(safe(caption(of))),
        *(f"<p>{safe(line, 1000)}</p>" for line in module.words(result)),
        grid(figures),
        *(f'<div class="card">{as_html(table)}</div>' for table in module.tables(result)),
        f"<details><summary>Settings</summary>{html_facts(facts, 'short')}</details>",
    ]


def _named_for(drawing: Drawing, task: str) -> Drawing:
    """The same drawing under a name of its own: the ids within SVGs of one page must differ."""
    return replace(drawing, name=f"{task}-{drawing.name}")
