"""Run a Flower app here and wait for it.

    python sims/run.py sims/lamp7 [-c real.toml] [-c 'rounds=3 seed=1'] [--federation-config 'num-supernodes=20']

`flwr run` returns at once and exits 0 even when the ServerApp raised. This checks the settings, data and base model
first, starts a SuperLink of its own (unless FLWR_HOME is set: then that one's is used and left running), streams the
log, and exits non-zero unless the run completed. The last line is the path of report.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import wall_clock
from flwr.common.config import parse_config_args

if TYPE_CHECKING:  # `fed` imports torch, two seconds in which a SuperLink can start: see `check` below
    from fed.settings import Settings

_ACTOR = re.compile(r"^(?:\x1b\[\d+m)?\(ClientAppActor pid=\d+\)(?:\x1b\[0m)? ?")
_PAIR = re.compile(r"""[\w.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"']+)""")
_NOISE = re.compile(
    r"^(?:\x1b\[\d+m)?(?:INFO|WARNING|DEBUG) ?(?:\x1b\[0m)? *:|^\s*$|^\(raylet|^\s+warnings\.warn|Warning:"
)


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
    from fed.settings import Settings

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
    from fed import base_model
    from fed.cohorts import roster
    from fed.lamp.records import open_corpus
    from fed.lamp.tasks import get_task

    base_model.check(settings.base_source)
    corpus = open_corpus(settings.data_source, get_task(settings.task), seed=settings.seed)
    roster(corpus, settings)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def superlink(
    *, own: bool = False, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[tuple[dict[str, str], int | None]]:
    """(environment for `flwr`, pid of our own SuperLink); it stops with the context.

    Args:
        own: start one even where FLWR_HOME names another, which is otherwise used and left running.
        meanwhile: what to do while it starts, some three seconds; what it raises ends the SuperLink.
    """
    environment = {key: value for key, value in os.environ.items() if not (own and key.startswith("FLWR_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}"
    environment.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    environment.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    environment.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment.setdefault("GOMP_SPINCOUNT", "1000")  # beside a busy process, waiting threads should not spin for long
    if "FLWR_HOME" in environment:
        meanwhile()
        yield environment, None
        return
    home = Path(tempfile.mkdtemp(prefix="perfit-flwr-"))
    http, control = str(_free_port()), str(_free_port())
    environment |= {
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": http,
        "FLWR_LOCAL_CONTROL_API_PORT": control,
    }
    command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--control-api-address", f"127.0.0.1:{control}", "--host", "127.0.0.1", "--port", http]
    with (home / "superlink.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            executable=shutil.which(command[0], path=environment["PATH"]),
            start_new_session=True,
        )
    try:
        meanwhile()
        _wait_for_port(int(http), process, home / "superlink.log")
        yield environment, process.pid
    finally:
        family = _family(process.pid)
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        _end(family)  # a run that is cut short leaves its simulation and Ray's processes behind
        shutil.rmtree(home, ignore_errors=True)


def _stat(pid: int) -> tuple[int, str, str] | None:
    """(parent, state, start time) of a process, None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), fields[0], fields[19]


def _family(root: int) -> dict[int, str]:
    """A process and all its descendants: pid -> start time, which tells a process from a later one of its pid."""
    children: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(stat[0], []).append(int(entry.name))
            started[int(entry.name)] = stat[2]
    family: dict[int, str] = {}
    todo = [root]
    while todo:
        pid = todo.pop()
        if pid in started:
            family[pid] = started[pid]
            todo += children.get(pid, [])
    return family


def _end(family: dict[int, str]) -> None:
    """End what is left of a family: SIGTERM, and SIGKILL after ten seconds."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 2.0)):
        left = [pid for pid, start in family.items() if (s := _stat(pid)) and s[1] != "Z" and s[2] == start]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and any((s := _stat(pid)) and s[1] != "Z" for pid in left):
            time.sleep(0.1)


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ValueError(f"the SuperLink ended with code {process.returncode}: {log.read_text()[-500:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise ValueError("the SuperLink must listen within 60 s, and it does not")


class PeakMemory(threading.Thread):
    """The largest proportional set size (PSS: shared pages count once) of a process and all its descendants."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self._root, self._stop_now = root, threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._stop_now.wait(4.0):
            self.peak = max(self.peak, sum(self._pss(pid) for pid in _family(self._root)))

    def finish(self) -> int:
        self._stop_now.set()
        self.join()
        return self.peak

    @staticmethod
    def _pss(pid: int) -> int:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
        except (OSError, StopIteration):
            return 0


def _flwr(environment: dict[str, str], *arguments: str) -> dict[str, object]:
    done = subprocess.run(["flwr", *arguments, "--format", "json"], env=environment, capture_output=True, text=True)
    try:
        answer = json.loads(done.stdout[done.stdout.index("{") :])
    except ValueError:
        raise ValueError((done.stderr or done.stdout).strip()[-800:] or f"flwr {arguments[0]} failed") from None
    if done.returncode or answer.get("success") is False:
        raise ValueError(str(answer.get("error-message") or answer))
    return dict(answer)


def _stream(environment: dict[str, str], run_id: str, keep: Path, verbose: bool) -> str:
    """Show the run's log as it comes, and keep all of it in a file; returns the last `error:` line."""
    keep.parent.mkdir(parents=True, exist_ok=True)
    log = subprocess.Popen(
        ["flwr", "log", run_id, "--stream"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert log.stdout is not None
    error = ""
    with keep.open("w", encoding="utf-8", buffering=1) as whole:
        for line in log.stdout:
            whole.write(line)
            text = _ACTOR.sub("", line.rstrip("\n"))
            if text.startswith("error: "):
                error = text
            # What follows an error line is Flower's traceback of it.
            if verbose or not (error or _NOISE.search(text)):
                print(text, flush=True)
    log.wait()
    return error


def _status(environment: dict[str, str], run_id: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        runs = _flwr(environment, "ls", "--run-id", run_id)["runs"]
        status = str(runs[0]["status"])  # type: ignore[index]
        if status.startswith("finished") or time.monotonic() > deadline:
            return status
        time.sleep(0.5)


def _leave(*_: object) -> None:
    """Leave by the same door, so that the SuperLink stops; a second signal, as `timeout` sends, must not stop that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(143)


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
    signal.signal(signal.SIGTERM, _leave)
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
            run_id = str(_flwr(environment, *arguments)["run-id"])
            folder = settings.run_folder(int(run_id))
            error = _stream(environment, run_id, folder / "run.log", options.verbose)
            status = _status(environment, run_id)
            if memory:
                print(f"peak memory of all processes: {memory.finish() / 1e9:.2f} GB (proportional set size)")
    except (ValueError, OSError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    if status != "finished:completed":
        print(error or f"error: the run ended as {status}; its whole log is {folder / 'run.log'}", file=sys.stderr)
        return 1
    report = folder / "report.json"
    if not report.is_file():
        print(f"error: the run completed, but there is no {report}", file=sys.stderr)
        return 1
    found = json.loads(report.read_text(encoding="utf-8"))
    if "clients" in found["seconds"]:
        from server_strategy.report import as_json, write_text

        found["seconds"]["command"] = parts = wall_clock.account(found, began, time.time())
        write_text(report, as_json(found))
        print(wall_clock.line(parts))
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
