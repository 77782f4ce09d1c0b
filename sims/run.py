"""Run a Flower app here and wait for it.

    python sims/run.py sims/lamp7 [-c real.toml] [-c 'rounds=3 seed=1'] [--federation-config 'num-supernodes=20']

`flwr run` returns at once and exits 0 even when the ServerApp raised. This checks the settings, data and base model
first, starts a SuperLink of its own (unless FLWR_HOME is set: then that one's is used and left running), streams the
log, and exits non-zero unless the run completed. The last line is the path of report.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from console import leaving
from simulation import wall_clock
from simulation.processes import PeakMemory
from simulation.superlink import final_status, flwr_json, stream_log, superlink

if TYPE_CHECKING:  # `fed` imports torch, two seconds in which a SuperLink can start: see `check` below
    from fed.settings.settings import Settings
from simulation.apps import preflight, settings_of, spelled_out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("app", type=Path, help="folder of a Flower app, such as sims/lamp7")
    parser.add_argument(
        "-c",
        "--run-config",
        action="append",
        default=[],
        metavar="'KEY=VALUE …'",
        help="override settings; or a TOML file",
    )
    parser.add_argument("--federation-config", metavar="'KEY=VALUE …'", help="such as 'num-supernodes=20'")
    parser.add_argument("--verbose", action="store_true", help="show all of Flower's and Ray's own lines")
    options = parser.parse_args()
    began = wall_clock.command_began()
    leaving.once()
    try:
        overrides = [spelled_out(override) for override in options.run_config]
        settings: Settings

        def check() -> None:
            nonlocal settings
            settings = settings_of(options.app, overrides)
            preflight(settings)

        with superlink(meanwhile=check) as (environment, pid):
            memory = PeakMemory(pid) if pid else None
            if memory:
                memory.start()
            arguments = ["run", str(options.app)]
            for override in overrides:
                arguments += ["--run-config", override]
            if options.federation_config:
                arguments += ["--federation-config", options.federation_config]
            run_id = str(flwr_json(environment, *arguments)["run-id"])
            folder = settings.run_folder(int(run_id))
            error = stream_log(environment, run_id, folder / "run.log", options.verbose)
            status = final_status(environment, run_id)
            if memory:
                print(f"peak memory of all processes: {memory.finish() / 1e9:.2f} GB (proportional set size)")
    except (ValueError, OSError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    if status != "finished:completed":
        print(error or f"error: the run ended as {status}; its whole log is {folder / 'run.log'}", file=sys.stderr)
        return 1
    report = folder / "report.json"
    if not report.is_file():
        print(f"error: the run completed, but there is no {report}", file=sys.stderr)
        return 1
    found = json.loads(report.read_text(encoding="utf-8"))
    if "clients" in found["seconds"]:
        from fed.atomic_write import write_text
        from server_strategy.report.report import as_json

        found["seconds"]["command"] = parts = wall_clock.account(found, began, time.time())
        write_text(report, as_json(found))
        print(wall_clock.line(parts))
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
