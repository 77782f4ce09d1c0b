"""The same job by the product and by the code that a user would write instead, in turn.

    python sims/bench_job.py --users 6 --turns 3 --json job.json

The job: stage 1 federated, stage 2 of every user, four arms with answers, from the command to its end. `ours` is
`sims/run.py sims/lamp7`. `pyreft` and `peft` are Flower's own example (`job.plain`): the base loaded in each message,
users and rows one after the other, LoReFT by pyreft's interventions, or OPPU's LoRA by PEFT. Users, rows, steps, rates
and base are the same. The ways take turns, so that a machine that slows down slows all of them; medians and ratios of
wall time, processor time and memory, and the losses, are printed and written to FILE after every one. `--runtime
in-process` does both without Flower's transport and without Ray (`job.here`), a process each: what is left then is
what the ways compute, and the loading of bases.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import console.installed  # noqa: F401  a Python without the project ends here
from console import terminal
from console.command import at_least_one, options_of, start, told
from console.files import write_json
from console.machine import machine
from job import outcome
from job.watched import python, watched
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from simulation.apps import CHECKOUT, SIMS, parsed, settings_of, words
from simulation.environment import without_proxy

from fed import strict_json
from server_strategy.report.report import git_commit

WAYS: dict[str, dict[str, Any]] = {
    "ours": {},
    "pyreft": {"engine": "pyreft"},
    "peft": {"method": "oppu", "stage1-lr": 0.01, "stage2-lr": 0.005},
}


@told()
def main() -> int:
    p = options_of(__doc__)
    p.add_argument("--users", type=int, default=6, help="in each stage (default: %(default)s)")
    p.add_argument("--turns", type=int, default=3, help="of every way (default: %(default)s)")
    p.add_argument(
        "--ways", default=",".join(WAYS), metavar="W,…", help="among %(default)s; the first is compared with"
    )
    p.add_argument(
        "--runtime",
        default="flower",
        choices=("flower", "in-process"),
        help="on Flower and Ray, or without them (default: %(default)s)",
    )
    p.add_argument("--json", type=Path, metavar="FILE", help="write everything there, after every turn")
    p.add_run_config("the job's settings, over those of sims/lamp7")
    options = p.parse_args()
    at_least_one(options, "users", "turns")
    ways = options.ways.split(",")
    if unknown := [way for way in ways if way not in WAYS]:
        raise ValueError(f"--ways must be among {', '.join(WAYS)}, got {', '.join(unknown)}")
    job = {"stage1-users": options.users, "stage2-users": options.users, "fraction": 1.0, "average": "fedavg"}
    job |= parsed(options.run_config)
    console, turns = terminal.console(), []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="perfit-job-") as scratch, Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=options.turns * len(ways))
        for turn in range(options.turns):
            for way in ways:
                bar.update(task, description=f"turn {turn + 1}: {way}")
                folder = Path(scratch) / f"{turn}-{way}"
                turns.append({"turn": turn, "way": way, **done(way, job | WAYS[way], folder, options.runtime)})
                bar.advance(task)
                if options.json:
                    write_json(options.json, account(job, turns))
    for table in outcome.tables(turns):
        console.print(table)
    same = outcome.apart(outcome.losses(turns), "ours", "pyreft")
    if same is not None:
        within = "within" if same <= outcome.SAME else "NOT within"
        console.print(f"losses of ours and pyreft differ by {same:.2%} at most, {within} {outcome.SAME:.0%}")
    console.print(f"{machine()}; commit {git_commit()}", highlight=False)
    return 0


def done(way: str, job: dict[str, Any], folder: Path, runtime: str) -> dict[str, Any]:
    """One turn of one way: what it took, and its arms' scores. Raises ValueError where it fails."""
    folder.mkdir()
    job = job | {"output-dir": str(folder)}
    settings = settings_of(SIMS / "lamp7", [words(job)])
    file = folder / "arms.json"
    path = os.pathsep.join(filter(None, (str(SIMS), str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    told = {"PYTHONPATH": path, "FLWR_TELEMETRY_ENABLED": "0", "RAY_worker_niceness": "0"}  # as the product's runs
    environment = without_proxy({**os.environ, **told})
    gpu: dict[str, Any] = {}
    if runtime == "in-process":
        config = json.dumps(settings.as_config())
        taken = watched(python("-m", "job.here", "ours" if way == "ours" else "plain", config, str(file)), environment)
        written = json.loads(file.read_text(encoding="utf-8"))
        arms, gpu = written["arms"], {"gpu_peak_bytes": written["gpu_peak_bytes"]}
    elif way == "ours":
        taken = watched(python(str(SIMS / "run.py"), str(SIMS / "lamp7"), "-c", words(job)))
        arms = strict_json.loads(Path(taken.said.strip().splitlines()[-1]).read_text(encoding="utf-8"))["arms"]
    else:
        config = json.dumps({**settings.as_config(), "cores": float(os.cpu_count() or 1)})
        taken = watched(python("-m", "job.plain", config, str(file)), environment)
        arms = json.loads(file.read_text(encoding="utf-8"))
    measures = {measure: getattr(taken, measure) for measure in outcome.MEASURES}
    return {**measures, **gpu, "arms": arms}


def account(job: dict[str, Any], turns: list[dict[str, Any]]) -> dict[str, Any]:
    """What is written: the job, where it ran, every turn, and their summary."""
    where = {"machine": machine(), "git": git_commit()}
    return {"job": job, **where, "turns": turns, "summary": outcome.summary(turns), "losses": outcome.losses(turns)}


if __name__ == "__main__":
    start(main)
