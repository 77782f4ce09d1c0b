"""What does it cost, in bytes, to personalize a language model for N users?

Compares PerFit (federated and private LoReFT edits) with OPPU, one LoRA per user (lora-p), one LoRA for everybody
(lora-c), FFA-LoRA and FedSA-LoRA: (a) federated training, (b) provisioning and storage, (c) edge-cloud serving. The
paper's tables 2 and 3 and FlowerTune's budget come first, from the same functions. Then (d), measured: perfit, oppu,
lora-p and lora-c each run in the Flower app on the embedded base, a few minutes together; `--analytic` leaves it out.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import comm_figures
import comm_measured
import leaving
import terminal
from comm_tables import Report, measured_tables, tables, write_csv, write_json
from rich.console import Console

from fed.communication import ledger
from fed.communication.costs import PAPER_RANKS
from fed.communication.wire import WIRE_DTYPES

EXAMPLES = """examples:
  python sims/compare_comm.py
  python sims/compare_comm.py --data ../shared/data/LaMP_4 --out results
  python sims/compare_comm.py --analytic
  python sims/compare_comm.py --analytic --model llama-3.2-1b --users 10000 --rounds 50 --wire-dtype bfloat16
  python sims/compare_comm.py --analytic --model ./my-model --sum-ranks 24,12 --out results --json results/all.json
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (--help shows the options)\n")


def parser() -> argparse.ArgumentParser:
    p = _Parser(description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--analytic", action="store_true", help="only what follows from the model's shapes; seconds")
    p.add_argument(
        "--model",
        default="llama-2-7b",
        help=f"{', '.join(ledger.PRESETS)}, a folder with a config.json, or a hub id (default: %(default)s)",
    )
    analysed = p.add_argument_group("what is analysed (the measured runs are small and the same for every method)")
    analysed.add_argument(
        "--users", type=int, default=100, metavar="N", help="users who federate (default: %(default)s)"
    )
    analysed.add_argument("--rounds", type=int, default=20, metavar="N", help="federated rounds (default: %(default)s)")
    analysed.add_argument(
        "--fraction", type=float, default=0.1, metavar="F", help="of users sampled in a round, in (0, 1] (default: 0.1)"
    )
    p.add_argument(
        "--wire-dtype", default="float32", choices=list(WIRE_DTYPES), help="of every tensor (default: %(default)s)"
    )
    p.add_argument(
        "--sum-ranks",
        default=",".join(map(str, PAPER_RANKS)),
        metavar="S1,S2",
        help="PerFit's ranks added over the edited layers, of stages 1 and 2 (default: %(default)s, the paper's "
        "LaMP-7; 3 layers of ranks 8 and 4 are 24,12)",
    )
    p.add_argument(
        "--uses-per-day", type=int, default=20, metavar="N", help="of the cloud model, in (c) (default: %(default)s)"
    )
    p.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="LaMP_4 or LaMP_7 data for the measured part (default: the embedded synthetic users)",
    )
    p.add_argument("--seed", type=int, default=0, help="of the measured part (default: %(default)s)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything to one JSON file")
    p.add_argument("--out", type=Path, metavar="DIR", help="write tables (CSV, JSON) and figures (PNG, SVG) there")
    return p


def analyse(options: argparse.Namespace) -> Report:
    """All numbers of the analytic part. Raises ValueError for a value that breaks its rule."""
    try:
        first, second = (int(part) for part in options.sum_ranks.split(","))
    except ValueError:
        raise ValueError(f"sum-ranks must be two whole numbers such as 64,32, got {options.sum_ranks!r}") from None
    plan: dict[str, Any] = {"users": options.users, "rounds": options.rounds, "fraction": options.fraction}
    uses, dtype = options.uses_per_day, options.wire_dtype
    nothing = ledger.Cost("nothing")  # a bad number is told before seconds go into building models
    ledger.federated_traffic(nothing, **plan)
    ledger.serving(nothing, uses_per_day=uses, uplink=ledger.UPLINKS[0])
    base = ledger.skeleton(options.model)
    costs = [ledger.cost(method, base, ranks=(first, second)) for method in ledger.METHODS]
    mean, budget = ledger.mean_reduction_percent(), ledger.flowertune_budget()
    return {
        "model": {key: getattr(base, key) for key in ("name", "parameters", "hidden_size", "layers")},
        "settings": plan | {"wire_dtype": dtype, "sum_ranks": [first, second], "uses_per_day": uses},
        "paper_table": ledger.paper_table(),
        "paper_mean_reduction_percent": mean,
        "flowertune": budget,
        "methods": [
            {
                "method": c.method,
                "federated_parameters": c.federated_parameters,
                "federated_bytes": c.federated_bytes(dtype),
                "private_parameters": c.private_parameters,
                "private_bytes": c.private_bytes(dtype),
                "frozen_bytes": c.frozen_bytes(dtype),
            }
            for c in costs
        ],
        "scenarios": {
            "federated": [
                {"method": c.method} | asdict(ledger.federated_traffic(c, dtype=dtype, **plan)) for c in costs
            ],
            "storage": [
                {"method": c.method} | asdict(ledger.storage(c, users=users, dtype=dtype))
                for c in costs
                for users in ledger.CROWDS
            ],
            "serving": [
                {"method": c.method} | asdict(ledger.serving(c, uses_per_day=uses, uplink=uplink, dtype=dtype))
                for c in costs
                for uplink in ledger.UPLINKS
            ],
        },
        "notes": [
            f"The mean of the twelve reductions is {mean:.2f} %; the paper's abstract says 92.3 %.",
            f"FlowerTune's Mistral-7B, LoRA r = 32 on q, v: {budget['parameters']:,} parameters × "
            f"{budget['bytes_per_number']} B × {budget['messages']} messages = {budget['total_gib']:.2f} GiB "
            "(listed as 40.7).",
            "Sizes are payload (tensor bytes) in binary units; PerFit's rank biases, which are sent, are counted "
            "everywhere but in the paper's tables.",
            "lora-c and ffa-lora have no private tensors: all users share one adapter. ffa-lora's frozen A comes from "
            "a seed, and a device keeps it.",
        ],
    }


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
    """Run every method in the Flower app and put the outcomes into `report`.

    Raises:
        ValueError: a run failed, or a measured payload is not the analytic one.
    """
    source = comm_measured.source_of(options.data)
    kept = options.out / "runs" if options.out else Path(tempfile.mkdtemp(prefix="compare-comm-"))
    runs = []
    for number, method in enumerate(comm_measured.METHODS, 1):
        head = f"{method} ({number} of {len(comm_measured.METHODS)})"
        start = time.monotonic()
        with console.status(f"{head}: starting") as status:

            def say(line: str, head: str = head, status: Any = status) -> None:
                if console.is_terminal:
                    status.update(f"{head}: {line[:90]}")
                elif line.startswith(("stage", "evaluation", "warning", "error")):
                    console.print(f"{head}: {line}", highlight=False, markup=False)

            path = comm_measured.run(method, source, kept.resolve(), options.wire_dtype, options.seed, say)
        runs.append(comm_measured.measured(path))
        console.print(f"{head}: {time.monotonic() - start:.0f} s · {path}", highlight=False, markup=False)
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
    wrong = [m for run in runs for m in run["messages"] if not m["equal"]]
    if wrong:
        m = wrong[0]
        raise ValueError(
            f"the measured payload must be the analytic one, but {m['method']} {m['phase']} {m['direction']} sent "
            f"{m['measured_payload']:,} B, not {m['analytic_payload']:,} B"
        )
    report["notes"].append(
        "Measured: one seed, the same users, rows and steps for all; rates by method: "
        + ", ".join(f"{m} {r['stage1-lr']:g} and {r['stage2-lr']:g}" for m, r in comm_measured.RATES.items())
        + ". Stage 2 of every method put 0 array bytes on the wire."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    console = terminal.console(110)
    try:
        if options.data and options.analytic:
            raise ValueError("data concerns the measured part, which --analytic leaves out; give one of the two")
        if not options.analytic:
            comm_measured.source_of(options.data)  # a wrong folder is told before anything is built
        for folder in (options.json.parent if options.json else None, options.out):
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
        report = analyse(options)
        for table in tables(report):
            console.print(table)
        if not options.analytic:
            measure(options, report, console)
            for table in measured_tables(report["measured"], report["scenarios"]["quality"]):
                console.print(table)
        wrote = []
        if options.json:
            wrote.append(f"wrote {write_json(options.json, report)}")
        if options.out:
            wrote.append(f"wrote {len(write(report, options.out))} files to {options.out}")
        for note in [*report["notes"], *wrote]:
            console.print(f"· {note}", highlight=False, markup=False)
    except (ValueError, OSError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    leaving.once()  # the run in progress is ended too, not left behind
    sys.exit(main())
