"""The result files of a comparison of methods."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping
from typing import Any

from cells.cell import Cell
from cells.run_cells import Reports
from console.files import write_csv, write_json
from console.machine import machine

from fed.atomic_write import write_text
from scores import rows as method_scores
from scores import tables as method_tables
from scores import tradeoff


def write(reports: Reports, lost: Mapping[Cell, str], options: argparse.Namespace) -> dict[str, Any]:
    """All result files of OUT, from the cells that have finished."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for cell, report in reports.items():
        grouped.setdefault((cell.task, cell.label), []).append(report)
    every = list(reports.values())
    results: dict[str, Any] = {
        "run": {
            "command": shlex.join(["python", "sims/compare_methods.py", *options.arguments]),
            "commits": sorted({report["git"] for report in every}),
            "machine": machine(),
            "base_models": sorted({"{name} ({dtype} on {device})".format(**r["base_model"]) for r in every}),
            "data": options.data.name if options.data else "synthetic",
            "seeds": sorted({report["seed"] for report in every}),
            "preset": options.preset,
            "interval": options.interval,
        },
        "rows": method_scores.rows(grouped),
        "differences": method_scores.differences(grouped, options.against, options.interval),
        "missing": [{"task": c.task, "method": c.label, "seed": c.seed, "reason": why} for c, why in lost.items()],
        "cells": [
            {"task": c.task, "method": c.label, "seed": c.seed, "key": c.key, "settings": r["settings"]}
            | {name: r[name] for name in ("arms", "parameters", "bytes", "seconds", "git")}
            for c, r in reports.items()
        ],
    }
    write_json(options.out / "results.json", results)
    write_text(options.out / "tables.md", method_tables.markdown(results))
    write_text(options.out / "index.html", method_tables.html(results))
    write_csv(options.out / "results.csv", method_tables.flat(results))
    tradeoff.save(results["rows"], options.out / "tradeoff.png")
    if results["differences"]:
        write_csv(options.out / "differences.csv", results["differences"])
    return results
