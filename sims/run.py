"""Run a Flower app here and wait for it.

    python sims/run.py sims/lamp7 [-c real.toml] [-c 'rounds=3 seed=1'] [--federation-config 'num-supernodes=20']

`flwr run` returns at once and exits 0 even when the ServerApp raised. This checks the settings, data and base model
first, starts a SuperLink of its own (unless FLWR_HOME is set: then that one's is used and left running), streams the
log, and exits non-zero unless the run completed. The last line is the path of report.json.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import leaving
import wall_clock
from flwr.common.config import parse_config_args
from processes import PeakMemory
from superlink import final_status, flwr_json, stream_log, superlink

from fed.base import sources

if TYPE_CHECKING:  # `fed` imports torch, two seconds in which a SuperLink can start: see `check` below
    from fed.settings.settings import Settings

_PAIR = re.compile(r"""[\w.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"']+)""")


def spelled_out(override: str) -> str:
    """key=value pairs; a TOML file of settings is read into them, since `flwr` takes no file beside pairs."""
    if not override.endswith(".toml"):
        return override
    try:
        found = tomllib.loads(Path(override).expanduser().read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"-c must name a readable TOML file of settings, got {override!r} ({error})") from error
    return " ".join(f"{key}={json.dumps(value)}" for key, value in found.items())


def settings_of(app: Path, overrides: list[str]) -> Settings:
    """The app's run config with the overrides, checked. Raises ValueError."""
    file = app / "pyproject.toml"
    if not file.is_file():
        raise ValueError(f"the app must be a folder with a pyproject.toml, and there is no {str(file)!r}")
    from fed.settings.settings import Settings

    config = tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["flwr"]["app"]["config"]
    changes = {}
    for override in overrides:
        try:
            found = parse_config_args([override])
        except Exception as error:
            raise ValueError(f"-c must be key=value pairs with texts in quotes, got {override!r}") from error
        # Flower reads past what it cannot parse; a setting that is silently not set would be worse than an error.
        if not found or len(_PAIR.sub("", override).split()):
            raise ValueError(f"-c must be key=value pairs with texts in quotes, got {override!r}")
        changes.update(found)
    return Settings.parse({**config, **changes})


def preflight(settings: Settings) -> None:
    """Open the data and find the base model, so that a mistake costs seconds. Raises ValueError."""
    from fed.lamp.cohorts import roster
    from fed.lamp.records import open_corpus
    from fed.lamp.tasks import get_task

    sources.check(settings.base_source)
    corpus = open_corpus(settings.data_source, get_task(settings.task), seed=settings.seed)
    roster(corpus, settings)


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
        from server_strategy.report.report import as_json, write_text

        found["seconds"]["command"] = parts = wall_clock.account(found, began, time.time())
        write_text(report, as_json(found))
        print(wall_clock.line(parts))
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
