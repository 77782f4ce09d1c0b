"""A SuperLink for simulations, and Flower's command line asked from a program: start, log, status."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from console import leaving

from simulation.environment import FLOWERS, SHORT_FOLDERS, of_flower, run_folder
from simulation.processes import end, stat
from simulation.watch import Watch

OWNER = "owner"  # a file in a SuperLink's home: the pid of the command that it belongs to
PATIENCE = 180.0  # seconds for a SuperLink to listen; three are enough on a quiet machine
_ACTOR = re.compile(r"^(?:\x1b\[\d+m)?\(ClientAppActor pid=\d+(?:, ip=[^)\s]+)?\)(?:\x1b\[0m)? ?")
_NOISE = re.compile(
    r"^(?:\x1b\[\d+m)?(?:INFO|WARNING|DEBUG) ?(?:\x1b\[0m)? *:|^\s*$|^\(raylet|^\s+warnings\.warn|Warning:"
)
_OURS = re.compile(r"warning: |stage \d: |error: ")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def superlink(
    *, own: bool = False, meanwhile: Callable[[], None] = lambda: None
) -> Iterator[tuple[dict[str, str], Watch | None]]:
    """(environment for `flwr`, the watch over our own SuperLink or None); it stops with the context.

    Promise: whatever of it was lost, with the context all that it started is gone, and its folder
    (tests/sims/test_kill.py, by night).

    Args:
        own: start one even where FLWR_HOME names another, which is otherwise used and left running.
        meanwhile: what to do while it starts, some three seconds; what it raises ends the SuperLink.
    """
    given = {key: value for key, value in os.environ.items() if not (own and key.startswith("FLWR_"))}
    if "FLWR_HOME" in given:
        meanwhile()
        yield of_flower(given, None), None
        return
    # A home and ports of its own, so that no other SuperLink is meant by accident.
    _sweep()
    home = run_folder()
    (home / OWNER).write_text(str(os.getpid()))
    http, control = str(free_port()), str(free_port())
    environment = of_flower(given, home)
    users_cache = os.environ.get("XDG_CACHE_HOME")
    if "XDG_CACHE_HOME" in environment:
        os.environ["XDG_CACHE_HOME"] = environment["XDG_CACHE_HOME"]  # where this process looks into the data, too
    environment |= {
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": http,
        "FLWR_LOCAL_CONTROL_API_PORT": control,
    }
    command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--control-api-address", f"127.0.0.1:{control}", "--host", "127.0.0.1", "--port", http]
    # Start it, use the three seconds that it takes, and end all that it started however the context is left.
    process = watch = None
    try:
        with leaving.held(), (home / "superlink.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                executable=shutil.which(command[0], path=environment["PATH"]),
                start_new_session=True,
                preexec_fn=leaving.with_parent,
            )
            watch = Watch(process)
            watch.start()
        meanwhile()
        wait_for_port(int(http), process, home / "superlink.log")
        yield environment, watch
    finally:
        if process is not None and watch is not None:
            members = watch.finish()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            end(members | watch.finish())  # a run cut short leaves its simulation and Ray's processes behind
        shutil.rmtree(home, ignore_errors=True)
        if users_cache is None:
            os.environ.pop("XDG_CACHE_HOME", None)
        else:
            os.environ["XDG_CACHE_HOME"] = users_cache


def homes() -> dict[Path, int]:
    """The homes of all SuperLinks for runs on this machine, each with the pid of the command that it belongs to."""
    owners: dict[Path, int] = {}
    for parent in {tempfile.gettempdir(), *SHORT_FOLDERS}:
        for owner in Path(parent).glob(f"{FLOWERS}*/{OWNER}"):
            with suppress(OSError, ValueError):
                owners[owner.parent] = int(owner.read_text())
    return owners


def _sweep() -> None:
    """Remove the homes of SuperLinks whose command was killed."""
    for home, owner in homes().items():
        if stat(owner) is None:
            shutil.rmtree(home, ignore_errors=True)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ValueError(f"the SuperLink ended with code {process.returncode}: {log.read_text()[-500:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise ValueError(f"the SuperLink must listen within {PATIENCE:.0f} s, and it does not")


def flwr_json(environment: dict[str, str], *arguments: str) -> dict[str, object]:
    command = ["flwr", *arguments, "--format", "json"]
    with leaving.child(command, env=environment, stderr=subprocess.PIPE) as process:
        said, error = process.communicate()
    try:
        answer = json.loads(said[said.index("{") :])
    except ValueError:
        raise ValueError((error or said).strip()[-800:] or f"flwr {arguments[0]} failed") from None
    if process.returncode or answer.get("success") is False:
        raise ValueError(str(answer.get("error-message") or answer))
    return dict(answer)


def stream_log(environment: dict[str, str], run_id: str, keep: Path, verbose: bool, watch: Watch | None = None) -> str:
    """Show the run's log as it comes, and keep all of it at the end of a file; returns the last `error:` line.

    Args:
        environment: for `flwr`.
        run_id: Flower's number of the run.
        keep: the file.
        verbose: show Flower's and Ray's own lines too.
        watch: ends the log where the SuperLink or the simulation is lost; None: nobody watches.
    """
    keep.parent.mkdir(parents=True, exist_ok=True)
    error = ""
    command = ["flwr", "log", run_id, "--stream"]
    with (
        leaving.child(command, env=environment) as log,
        keep.open("a", encoding="utf-8", buffering=1) as whole,
    ):
        assert log.stdout is not None
        if watch is not None:
            watch.when_lost(log.kill)
        for line in log.stdout:
            whole.write(line)
            text = _ACTOR.sub("", line.rstrip("\n"))
            if text.startswith("error: "):
                error = text
            # What follows an error line is Flower's traceback of it.
            # A line of ours is never noise, whatever texts off the network it quotes.
            noise = not _OURS.match(text) and _NOISE.search(text)
            if verbose or not (error or noise):
                print(text, flush=True)
    return error


def status_now(environment: dict[str, str], run_id: str) -> str:
    """The run's status, as `flwr ls` says it."""
    runs = flwr_json(environment, "ls", "--run-id", run_id)["runs"]
    return str(runs[0]["status"])  # type: ignore[index]


def final_status(environment: dict[str, str], run_id: str) -> str:
    deadline = time.monotonic() + 60
    while True:
        status = status_now(environment, run_id)
        if status.startswith("finished") or time.monotonic() > deadline:
            return status
        time.sleep(0.5)
