"""The measured part of `compare_comm.py`, and all of its files."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cells.run_cells import run_cells
from console.command import device_of
from console.files import write_csv, write_json
from rich.console import Console

from communication import figures as comm_figures
from communication import frontier as comm_frontier
from communication import measured as comm_measured
from communication.codings import codings
from communication.tables import Report


def figures(report: Report, folder: Path) -> list[Path]:
    """The three scenarios as PNG and SVG."""
    s, name, scenarios = report["settings"], report["model"]["name"], report["scenarios"]
    plan = f"{s['users']:,} users, {s['rounds']:,} rounds, fraction {s['fraction']:g}"
    draw = [
        ("federated", comm_figures.federated, f"Federated training on {name}: {plan}, {s['wire_dtype']}"),
        ("storage", comm_figures.storage, f"Provisioning and storage on {name}, {s['wire_dtype']}"),
        ("serving", comm_figures.serving, f"Edge-cloud serving on {name}: private tensors travel, {s['wire_dtype']}"),
    ]
    files = []
    for key, paint, title in draw:
        files += comm_figures.save(paint(scenarios[key]), folder / key, height=4, title=title)
    return files


def write(report: Report, folder: Path) -> list[Path]:
    """Every table as CSV and JSON, every scenario as figures."""
    files = []
    for name, rows in ({k: report[k] for k in ("paper_table", "methods")} | report["scenarios"]).items():
        files += [write_csv(folder / f"{name}.csv", rows), write_json(folder / f"{name}.json", rows)]
    if "measured" in report:
        rows = [row for run in report["measured"] for row in run["messages"]]
        files += [write_csv(folder / "measured.csv", rows), write_json(folder / "measured.json", report["measured"])]
        quality = report["scenarios"]["quality"]
        plan = report["settings"]["measured"]
        base = plan["base_model"].partition(" (")[0]  # without the file it was read from
        title = f"Quality against bytes on {base}, {plan['task']} ({plan['data']}), {plan['users']} users"
        files += comm_figures.save(comm_figures.quality(quality), folder / "quality", height=4.6, title=title)
    return files + figures(report, folder)


def measure(options: argparse.Namespace, report: Report, console: Console) -> None:
    """Run every method in the Flower app, kept in OUT/cells, and put the outcomes into `report`.

    Promise: a payload that is not the analytic one fails the command, and a finished run is not run again
    (tests/sims/test_compare_comm.py).

    Raises:
        ValueError: a run failed, or a measured payload is not the analytic one.
    """
    if options.out:
        _measured_in(options.out / "cells", options, report, console)
        return
    with tempfile.TemporaryDirectory(prefix="compare-comm-") as scratch:  # nobody asked to keep the runs
        _measured_in(Path(scratch), options, report, console)


def _measured_in(root: Path, options: argparse.Namespace, report: Report, console: Console) -> None:
    # The runs. A method's messages are its own, so none is taken from another whose stage 1 it is.
    source = comm_measured.source_of(options.data)
    cells = comm_measured.cells_of(source, wire_dtype=options.wire_dtype, seed=options.seed, changes=device_of(options))
    reports, lost = run_cells(cells, root, console, jobs=options.jobs, runtime=options.runtime, share_stage1=False)
    if options.out:
        console.print(f"runs: {root}", highlight=False, markup=False)
    for failed in lost.values():
        raise ValueError(failed)
    runs = [comm_measured.measured(r, cell.run_folder(root) / "bytes.csv") for cell, r in reports.items()]
    # What they were runs of, and what came of them.
    first = runs[0]["report"]
    report["settings"]["measured"] = comm_measured.PLAN | {
        "rates": comm_measured.RATES,
        "seed": options.seed,
        "base_model": first["base_model"]["name"],
        "dtype": first["base_model"]["dtype"],
        "task": first["data"]["task"],
        "data": Path(source.data).name,
        "users": len(first["users"]),
        "git": first["git"],
    }
    report["scenarios"]["quality"] = comm_measured.quality_against_bytes(runs)
    report["measured"] = [{key: value for key, value in run.items() if key != "report"} for run in runs]
    # The measured bytes against the analysis.
    for m in (m for run in runs for m in run["messages"] if not m["equal"]):
        raise ValueError(
            f"the measured payload must be the analytic one, but {m['method']} {m['phase']} {m['direction']} sent "
            f"{m['measured_payload']:,} B, not {m['analytic_payload']:,} B"
        )
    report["notes"].append(
        "Measured: one seed, the same users, rows and steps for all; rates by method: "
        + ", ".join(f"{run['method']} {_rates(run['report']['settings'])}" for run in runs)
        + ". Stage 2 of every method put 0 array bytes on the wire."
    )


def frontier(options: argparse.Namespace, report: Report, console: Console) -> None:
    """Run every lever of the frontier, kept in OUT/cells, and put its rows into `report`. Raises ValueError.

    Promise: a finished run is not run again (tests/sims/test_compare_comm.py).
    """
    with ExitStack() as held:
        scratch = None if options.out else held.enter_context(tempfile.TemporaryDirectory(prefix="compare-comm-"))
        root = options.out / "cells" if options.out else Path(str(scratch))
        source = comm_measured.source_of(options.data)
        cells = comm_frontier.cells_of(source, seed=options.seed, changes=device_of(options))
        reports, lost = run_cells(cells, root, console, jobs=options.jobs, runtime=options.runtime, share_stage1=False)
        for failed in lost.values():
            raise ValueError(failed)
        runs = {
            cell.label: comm_frontier.Finished(found, cell.run_folder(root) / "bytes.csv")
            for cell, found in reports.items()
        }
        first = next(iter(runs.values())).report
        report["settings"] = comm_frontier.PLAN | {
            "seed": options.seed,
            "base_model": first["base_model"]["name"],
            "dtype": first["base_model"]["dtype"],
            "task": first["data"]["task"],
            "data": Path(source.data).name,
            "git": first["git"],
        }
        report["measured"] = comm_frontier.rows_of(runs)
        wide = runs[comm_frontier.WIDE]
        report["codings"] = codings(wide.report, wide.entries.parent)


def write_frontier(report: Report, folder: Path) -> list[Path]:
    """The counted and the measured rows as CSV and JSON, and these as a figure."""
    files = []
    for name in ("counted", "measured", "codings"):
        if rows := report.get(name):
            files += [
                write_csv(folder / f"frontier_{name}.csv", rows),
                write_json(folder / f"frontier_{name}.json", rows),
            ]
    if rows := report.get("measured"):
        s = report["settings"]
        base = s["base_model"].partition(" (")[0]
        title = f"Uplink bytes against quality on {base}, {s['task']} ({s['data']}), {rows[0]['users']} users"
        files += comm_figures.save(comm_frontier.drawing(rows), folder / "frontier", height=5.2, title=title)
    return files


def _rates(settings: dict[str, Any]) -> str:
    return f"{settings['stage1-lr']:g} and {settings['stage2-lr']:g}"
