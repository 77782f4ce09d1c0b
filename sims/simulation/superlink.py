"""A SuperLink for simulations with the Ray that they join, and what Flower says of a run: its log, its status."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from console import leaving
from services import ray_head
from services.flower_cli import FlowerCli, answer, flower_cli

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


@dataclass(frozen=True)
class SuperLink:
    """A SuperLink that runs can be given to.

    Attributes:
        environment: for `flwr`, and for all that is to mean this SuperLink.
        flower: Flower's command line.
        watch: over our own one; None where it was there before, and stays.
        has_ray: whether its simulations join a Ray that was started with it.
    """

    environment: dict[str, str]
    flower: FlowerCli
    watch: Watch | None
    has_ray: bool


@contextmanager
def superlink(
    *,
    own: bool = False,
    ray: Mapping[str, int] | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> Iterator[SuperLink]:
    """A SuperLink, our own with a Ray unless RAY_ADDRESS names one already; what was started stops with the context.

    Promise: whatever of it was lost, with the context all that it started is gone, and its folder
    (tests/sims/test_kill.py, by night).

    Args:
        own: start one even where FLWR_HOME names another, which is otherwise used and left running.
        ray: options of the Ray to start (`services.ray_head.for_ray`).
        meanwhile: what to do while it starts, some three seconds; what it raises ends the SuperLink.
    """
    given = {key: value for key, value in os.environ.items() if not (own and key.startswith("FLWR_"))}
    if "FLWR_HOME" in given:
        environment = of_flower(given, None)
        with flower_cli(environment) as flower:
            meanwhile()
            yield SuperLink(environment, flower, None, has_ray=False)
        return
    # A home and ports of its own, so that no other SuperLink is meant by accident.
    _sweep()
    home = run_folder()
    (home / OWNER).write_text(str(os.getpid()))
    environment = of_flower(given, home)
    has_ray = ray_head.ADDRESS not in given
    http, control, ray_port = (str(free_port()) for _ in range(3))
    environment |= {
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": http,
        "FLWR_LOCAL_CONTROL_API_PORT": control,
    }
    joining = environment | ({ray_head.ADDRESS: f"127.0.0.1:{ray_port}"} if has_ray else {})
    command = ["flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess"]
    command += ["--disable-runtime-dependency-installation"]  # a run's dependencies are this environment's
    command += ["--control-api-address", f"127.0.0.1:{control}", "--host", "127.0.0.1", "--port", http]
    # Start all of it at once, use the seconds that it takes, and end it however the context is left.
    watch = None
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        stack.enter_context(_caches_of(environment))
        try:
            with leaving.held(), (home / "superlink.log").open("wb") as log:
                process = subprocess.Popen(
                    command,
                    env=joining,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    executable=shutil.which(command[0], path=environment["PATH"]),
                    start_new_session=True,
                    preexec_fn=leaving.with_parent,
                )
                watch = Watch(process)
                watch.start()
                if has_ray:
                    ray_process = ray_head.start(environment, int(ray_port), ray or {}, home / "ray.log")
                    watch.add(ray_process)
            flower = stack.enter_context(flower_cli(environment))
            meanwhile()
            wait_for_port(int(http), process, home / "superlink.log")
            if has_ray:
                wait_for_port(int(ray_port), ray_process, home / "ray.log", "Ray")
            yield SuperLink(environment, flower, watch, has_ray)
        finally:
            if watch is not None:
                # A simulation, and Ray's processes, that a run cut short would leave behind; nothing of it is kept.
                end(watch.finish(), patience=0.0 if has_ray else 10.0)
                end(watch.finish())


@contextmanager
def _caches_of(environment: Mapping[str, str]) -> Iterator[None]:
    """Inside, this process looks into the data where the SuperLink's do."""
    before = os.environ.get("XDG_CACHE_HOME")
    if "XDG_CACHE_HOME" in environment:
        os.environ["XDG_CACHE_HOME"] = environment["XDG_CACHE_HOME"]
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("XDG_CACHE_HOME", None)
        else:
            os.environ["XDG_CACHE_HOME"] = before


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


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path, name: str = "the SuperLink") -> None:
    """Wait until a process listens. Raises ValueError, with the end of its log, where it ends or never does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ValueError(f"{name} ended with code {process.returncode}: {log.read_text()[-500:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise ValueError(f"{name} must listen within {PATIENCE:.0f} s, and it does not")


def flwr_json(environment: dict[str, str], *arguments: str) -> dict[str, Any]:
    """The answer of one of Flower's commands, in a process of its own. Raises ValueError with its own words."""
    command = ["flwr", *arguments, "--format", "json"]
    with leaving.child(command, env=environment, stderr=subprocess.PIPE) as process:
        said, error = process.communicate()
    found = answer(said if "{" in said else error or said, arguments[0])
    if process.returncode:
        raise ValueError(str(found))
    return found


def show_log(lines: Iterable[str], keep: Path, verbose: bool, until: str = "") -> tuple[str, bool]:
    """Show a run's log as it comes, and keep it at the end of a file.

    Args:
        lines: the log, which `flwr log --stream` ends with the run.
        keep: the file.
        verbose: show Flower's and Ray's own lines too.
        until: the line that is the run's last; what follows it is Flower's and is not waited for.
    Returns:
        (the last `error:` line, whether the log came to `until`).
    """
    keep.parent.mkdir(parents=True, exist_ok=True)
    error = ""
    with keep.open("a", encoding="utf-8", buffering=1) as whole:
        for line in lines:
            whole.write(line)
            text = _ACTOR.sub("", line.rstrip("\n"))
            if text.startswith("error: "):
                error = text
            # What follows an error line is Flower's traceback of it.
            # A line of ours is never noise, whatever texts off the network it quotes.
            noise = not _OURS.match(text) and _NOISE.search(text)
            if verbose or not (error or noise):
                print(text, flush=True)
            if until and line.rstrip("\n") == until and not error:
                return "", True
    return error, False


def status_now(ask: Callable[..., dict[str, Any]], run_id: str) -> str:
    """The run's status, as `flwr ls` says it. ask: `FlowerCli.json`, or `flwr_json` for a SuperLink."""
    return str(ask("ls", "--run-id", run_id)["runs"][0]["status"])


def final_status(ask: Callable[..., dict[str, Any]], run_id: str) -> str:
    """The status of a run whose log has ended; it is asked for up to a minute."""
    deadline = time.monotonic() + 60
    while True:
        status = status_now(ask, run_id)
        if status.startswith("finished") or time.monotonic() > deadline:
            return status
        time.sleep(0.1)
