"""Run a Flower app here and wait for it.

    python sims/run.py sims/lamp7 [-c real.toml] [-c 'rounds=3 seed=1'] [--federation-config 'num-supernodes=20']

`flwr run` returns at once and exits 0 even when the ServerApp raised. This checks the settings, data and base model
first, starts a SuperLink of its own (unless FLWR_HOME is set: then that one's is used and left running), streams the
log, and exits non-zero unless the run completed. The last line is the path of report.json.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from console.command import options_of, start, told
from simulation import wall_clock
from simulation.apps import left_out, preflight, settings_of, spelled_out
from simulation.processes import PeakMemory
from simulation.superlink import final_status, flwr_json, stream_log, superlink

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
    arguments = ["run", str(options.app)]
    for override in overrides:
        arguments += ["--run-config", override]
    if options.federation_config:
        arguments += ["--federation-config", options.federation_config]
    folder, memory = run(options.app, overrides, arguments, verbose=options.verbose)
    if memory:
        print(f"peak memory of all processes: {memory / 1e9:.2f} GB (proportional set size)", flush=True)
    report = folder / "report.json"
    if not report.is_file():
        raise ValueError(f"the run completed, but there is no {report}")
    add_account(report, began)
    print(report)
    return 0


def run(app: Path, overrides: list[str], arguments: list[str], *, verbose: bool) -> tuple[Path, int]:
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
    with superlink(meanwhile=check) as (environment, pid):
        memory = PeakMemory(pid) if pid else None
        if memory:
            memory.start()
        run_id = str(flwr_json(environment, *arguments)["run-id"])
        folder = settings.run_folder(int(run_id))
        error = stream_log(environment, run_id, folder / "run.log", verbose)
        status = final_status(environment, run_id)
        if memory:
            peak = memory.finish()
    if status != "finished:completed":
        ended = f"the run ended as {status}; its whole log is {folder / 'run.log'}"
        raise ValueError(error.removeprefix("error: ") or ended)
    return folder, peak


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
    start(main)
