"""Run a Flower app here and wait for it.

    python sims/run.py sims/lamp7 [-c real.toml] [-c 'rounds=3 seed=1'] [--federation-config 'num-supernodes=20']
    python sims/run.py sims/lamp7 -c 'resume="runs/lamp7/<run>"'
    python sims/run.py sims/lamp7 --keep        python sims/run.py --stop

`flwr run` returns at once and exits 0 even when the ServerApp raised. This checks the settings, data and base model
first, starts a SuperLink of its own (unless FLWR_HOME is set: then that one's is used and left running), streams the
log, and exits non-zero unless the run completed. The last line is the path of report.json. With RAY_ADDRESS=HOST:PORT
it runs on that Ray cluster's machines (sims/CLUSTER.md). With --keep the SuperLink and Ray stay for the next run with
--keep, which then starts sooner, until --stop or ten minutes without a run.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import console.installed  # noqa: F401  a Python without the project ends here
from console.command import options_of, start, told
from console.leaving import adopt_orphans
from keeping.kept import kept_superlink, spared, stop
from services import ray_head
from simulation import wall_clock
from simulation.apps import federation_of, left_out, preflight, settings_of, spelled_out, with_all_cores, words
from simulation.environment import ray_cluster
from simulation.processes import PeakMemory, end, family
from simulation.superlink import SuperLink, final_status, flwr_json, show_log, status_now, superlink

if TYPE_CHECKING:  # `fed` imports torch, two seconds in which a SuperLink can start: see `check` below
    from fed.settings.settings import Settings

COMPLETED = "finished:completed"


@told()
def main() -> int:
    parser = options_of(__doc__)
    parser.add_argument("app", type=Path, nargs="?", help="folder of a Flower app, such as sims/lamp7")
    parser.add_run_config()
    parser.add_argument("--federation-config", metavar="'KEY=VALUE …'", help="such as 'num-supernodes=20'")
    parser.add_argument("--verbose", action="store_true", help="show all of Flower's and Ray's own lines")
    parser.add_argument("--keep", action="store_true", help="keep the SuperLink and Ray for the next run with --keep")
    parser.add_argument("--stop", action="store_true", help="end what --keep keeps")
    options = parser.parse_args()
    if options.stop:
        print("nothing is kept any longer" if stop() else "nothing was kept")
        if options.app is None:
            return 0
    if options.app is None:
        parser.error("an app is needed, the folder of a Flower app, such as sims/lamp7")
    began = wall_clock.command_began()
    overrides = [spelled_out(override) for override in options.run_config]
    of_federation = options.federation_config or ""
    folder, memory = run(options.app, overrides, of_federation, verbose=options.verbose, keep=options.keep)
    if memory:
        print(f"peak memory of all processes: {memory / 1e9:.2f} GB (proportional set size)", flush=True)
    report = folder / "report.json"
    if not report.is_file():
        raise ValueError(f"the run completed, but there is no {report}")
    add_account(report, began)
    print(report)
    return 0


def run(app: Path, overrides: list[str], federation: str, *, verbose: bool, keep: bool = False) -> tuple[Path, int]:
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
    of_federation = federation_of(federation)
    if not cluster:  # whose hosts may have any number of cores
        from fed import threads  # without torch

        of_federation = with_all_cores(of_federation, threads.available())
    ray = ray_head.for_ray(of_federation)
    with kept_superlink(ray=ray, meanwhile=check) if keep else superlink(ray=ray, meanwhile=check) as link:
        # A cluster's processes are not ours to measure.
        memory = PeakMemory(*link.watch.pids) if link.watch and not cluster else None
        if memory:
            memory.start()
        # A run that is resumed has the settings that it began with, whatever else is given.
        changes = [words(settings.as_config())] if settings.resume else overrides
        arguments = [word for change in changes for word in ("--run-config", change)]
        if rest := ray_head.without_ray(of_federation) if link.has_ray else of_federation:
            arguments += ["--federation-config", words(rest)]
        run_id = str(link.flower.json("run", str(app), *arguments)["run-id"])
        folder = settings.run_folder(int(run_id))
        # Where all of it is ours and ends with the run, nobody waits for it to end by itself.
        last = f"report: {folder / 'report.json'}" if link.watch and link.has_ray else ""
        if link.watch:
            link.watch.when_lost(link.flower.kill)
        error, whole = show_log(link.flower.lines("log", run_id, "--stream"), folder / "run.log", verbose, last)
        status = COMPLETED if whole else status_of(link, run_id, folder)
        if memory:
            peak = memory.finish()
    if status != COMPLETED:
        ended = f"the run ended as {status}; its whole log is {folder / 'run.log'}"
        raise ValueError(error.removeprefix("error: ") or ended)
    return folder, peak


def status_of(link: SuperLink, run_id: str, folder: Path) -> str:
    """The status that the run ended with.

    Raises:
        ValueError: the SuperLink or the simulation was lost; in one line, with the way to go on.
    """
    if link.watch is None or not link.watch.lost:
        return final_status(link.flower.json, run_id)
    # A simulation that ended well may look lost on a slow machine; a SuperLink that is lost cannot be asked.
    status = status_now(partial(flwr_json, link.environment), run_id) if link.watch.superlink_lives else ""
    if not status.startswith("finished"):
        resume = f"go on with -c 'resume=\"{folder}\"'"
        raise ValueError(f"{link.watch.lost}; {resume}; the whole log is {folder / 'run.log'}")
    return status


def add_account(path: Path, began: float) -> None:
    """Put where the command's time went into report.json, and print it; a run on devices has no such account."""
    if parts := wall_clock.add(path, began, time.time()):
        print(wall_clock.line(parts))


if __name__ == "__main__":
    # Whatever is started here ends here, also what Flower's command line starts behind its back.
    adopted = adopt_orphans()
    try:
        start(main)
    finally:
        if adopted:
            others = spared() | {os.getpid(): ""}
            end({pid: since for pid, since in family(os.getpid()).items() if pid not in others})
