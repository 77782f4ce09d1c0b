"""Run a Flower app here and wait for it.

    python sims/run.py sims/lamp7 [-c real.toml] [-c 'rounds=3 seed=1'] [--federation-config 'num-supernodes=20']
    python sims/run.py sims/lamp7 -c 'resume="runs/lamp7/<run>"'

`flwr run` returns at once and exits 0 even when the ServerApp raised. This checks the settings, data and base model
first, starts a SuperLink of its own (unless FLWR_HOME is set: then that one's is used and left running), streams the
log, and exits non-zero unless the run completed. The last line is the path of report.json. With RAY_ADDRESS=HOST:PORT
it runs on that Ray cluster's machines (sims/CLUSTER.md).
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from console.command import options_of, start, told
from console.leaving import adopt_orphans
from simulation import wall_clock
from simulation.apps import left_out, preflight, settings_of, spelled_out, words
from simulation.environment import ray_cluster
from simulation.processes import PeakMemory, end, family
from simulation.superlink import final_status, flwr_json, status_now, stream_log, superlink
from simulation.watch import Watch

if TYPE_CHECKING:  # `fed` imports torch, two seconds in which a SuperLink can start: see `check` below
    from fed.settings.settings import Settings


@told()
def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("app", type=Path, help="folder of a Flower app, such as sims/lamp7")
    parser.add_run_config()
    parser.add_argument("--federation-config", metavar="'KEY=VALUE …'", help="such as 'num-supernodes=20'")
    parser.add_argument("--verbose", action="store_true", help="show all of Flower's and Ray's own lines")
    options = parser.parse_args()
    began = wall_clock.command_began()
    overrides = [spelled_out(override) for override in options.run_config]
    federation = ["--federation-config", options.federation_config] if options.federation_config else []
    folder, memory = run(options.app, overrides, federation, verbose=options.verbose)
    if memory:
        print(f"peak memory of all processes: {memory / 1e9:.2f} GB (proportional set size)", flush=True)
    report = folder / "report.json"
    if not report.is_file():
        raise ValueError(f"the run completed, but there is no {report}")
    add_account(report, began)
    print(report)
    return 0


def run(app: Path, overrides: list[str], federation: list[str], *, verbose: bool) -> tuple[Path, int]:
    """The run's folder, and the most memory that all processes took, 0 where the SuperLink was there before.

    Raises:
        ValueError: a mistake in the settings, or the run's own error line.
    """
    settings: Settings

    def check() -> None:
        nonlocal settings
        settings = settings_of(app, overrides)
        if others := left_out(app):
            print(others, flush=True)
        preflight(settings)

    peak = 0
    if cluster := ray_cluster(os.environ):
        print(f"Ray: the cluster at {cluster}, as RAY_ADDRESS says", flush=True)
    with superlink(meanwhile=check) as (environment, watch):
        memory = PeakMemory(watch.pid) if watch and not cluster else None  # a cluster's processes are not ours
        if memory:
            memory.start()
        # A run that is resumed has the settings that it began with, whatever else is given.
        changes = [words(settings.as_config())] if settings.resume else overrides
        arguments = [word for change in changes for word in ("--run-config", change)]
        run_id = str(flwr_json(environment, "run", str(app), *arguments, *federation)["run-id"])
        folder = settings.run_folder(int(run_id))
        error = stream_log(environment, run_id, folder / "run.log", verbose, watch)
        status = status_of(environment, run_id, watch, folder)
        if memory:
            peak = memory.finish()
    if status != "finished:completed":
        ended = f"the run ended as {status}; its whole log is {folder / 'run.log'}"
        raise ValueError(error.removeprefix("error: ") or ended)
    return folder, peak


def status_of(environment: dict[str, str], run_id: str, watch: Watch | None, folder: Path) -> str:
    """The status that the run ended with.

    Raises:
        ValueError: the SuperLink or the simulation was lost; in one line, with the way to go on.
    """
    if watch is not None and watch.lost:
        # A simulation that ended well may look lost on a slow machine; a SuperLink that is lost cannot be asked.
        status = status_now(environment, run_id) if watch.superlink_lives else ""
        if not status.startswith("finished"):
            resume = f"go on with -c 'resume=\"{folder}\"'"
            raise ValueError(f"{watch.lost}; {resume}; the whole log is {folder / 'run.log'}")
        return status
    return final_status(environment, run_id)


def add_account(path: Path, began: float) -> None:
    """Put where the command's time went into report.json, and print it; a run on devices has no such account."""
    from fed import strict_json

    report = strict_json.loads(path.read_text(encoding="utf-8"))
    if "clients" in report["seconds"]:
        from fed.atomic_write import write_text
        from server_strategy.report.report import as_json

        report["seconds"]["command"] = parts = wall_clock.account(report, began, time.time())
        write_text(path, as_json(report))
        print(wall_clock.line(parts))


if __name__ == "__main__":
    # Whatever is started here ends here, also what Flower's command line starts behind its back.
    adopted = adopt_orphans()
    try:
        start(main)
    finally:
        if adopted:
            end({pid: since for pid, since in family(os.getpid()).items() if pid != os.getpid()})
