"""A real federation on this machine: a SuperLink, and one SuperNode a device, each a process of its own.

    python sims/devices.py --devices 4
    python sims/devices.py sims/lamp7 --devices 3 --encrypt -c 'rounds=2'
    python sims/devices.py --devices 2 --no-tls --no-auth --capture
    python sims/devices.py --devices 2 --no-namespaces

Devices run the client code of clients/ on a history and a vault of their own; each message is a new process there. TLS
and SuperNode authentication are on, with keys made for this run. As root with iproute2 each device is in a network
namespace of its own, whose only way out is a link to the server. A proxy before each device counts its bytes, and the
link those of its frames; both go into report.json (`bytes.measured`). Everything that was started is stopped by its
pid, also on Ctrl-C, and the namespaces are removed. The last line is the path of report.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import device_traffic
import leaving
import network_namespaces
from device_farm import Device, Farm
from run import settings_of, spelled_out
from superlink import final_status, stream_log

from fed.base import sources
from fed.lamp.records import Corpus, open_corpus
from fed.lamp.tasks import get_task
from fed.privacy.sealed import new_key_file
from fed.settings.settings import Settings
from server_strategy.report.report import as_json, write_text

CHECKOUT = Path(__file__).resolve().parents[1]
_PROGRESS = re.compile(r"^(?:stage [12]|evaluate|error:)")


def choose_users(corpus: Corpus, count: int) -> list[str]:
    """The first users by id. Raises ValueError where there are too few."""
    users = sorted({*corpus.cohorts["others"], *corpus.cohorts["test"]})
    if len(users) < count:
        raise ValueError(f"--devices must be at most the data's {len(users)} users, got {count}")
    return users[:count]


def write_history(corpus: Corpus, user_id: str, path: Path) -> None:
    """One user's history and queries as the file that a device of its own would have (OPPU's record)."""
    user = corpus.user(user_id)
    asked = [{"id": query.id, "input": query.input, "gold": query.gold} for query in user.queries]
    record = {"user_id": user_id, "profile": list(user.profile), "query": asked}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([record], ensure_ascii=False), encoding="utf-8")
    path.chmod(0o600)


def equip(farm: Farm, corpus: Corpus, settings: Settings, user: str, *, encrypt: bool) -> Device:
    """Add a device with the user's history, an empty vault, and a key file for it if asked."""
    folder = farm.folder / user
    write_history(corpus, user, folder / "history.json")
    config = {
        "user-id": user,
        "history": str(folder / "history.json"),
        "base-model": settings.base_source,
        "vault": str(folder / "vault"),
    }
    if encrypt:
        new_key_file(folder / "vault.key")
        config["vault-key-file"] = str(folder / "vault.key")
    return farm.add(user, config)


class Follow(threading.Thread):
    """Shows what devices say of their progress and errors, each line with its user."""

    def __init__(self, devices: list[Device]) -> None:
        super().__init__(daemon=True)
        self._devices, self._done = devices, threading.Event()
        self._at = {device.user: 0 for device in devices}

    def run(self) -> None:
        while not self._done.wait(0.5):
            for device in self._devices:
                if not device.log.exists():
                    continue
                with device.log.open("rb") as log:
                    log.seek(self._at[device.user])
                    whole, line_end, _ = log.read().rpartition(b"\n")
                self._at[device.user] += len(whole) + len(line_end)
                for line in whole.decode("utf-8", "replace").splitlines():
                    if _PROGRESS.match(line):
                        print(f"  {device.user}: {line}", flush=True)

    def finish(self) -> None:
        self._done.set()
        self.join()


def federate(farm: Farm, app: Path, overrides: list[str], settings: Settings, *, verbose: bool = False) -> Path:
    """Run the app on the farm's devices and wait; returns the run's folder. Raises ValueError unless it completed."""
    arguments = ["run", str(app)]
    for override in overrides:
        arguments += ["--run-config", override]
    run_id = str(farm.flwr(*arguments)["run-id"])
    folder = settings.run_folder(int(run_id))
    follow = Follow(list(farm.devices.values()))
    follow.start()
    try:
        error = stream_log(farm.environment("server"), run_id, folder / "run.log", verbose)
    finally:
        follow.finish()
    while not (status := final_status(farm.environment("server"), run_id)).startswith("finished"):
        pass  # on a starved machine the log's stream breaks off; Flower's answers then say when the run has ended
    if status != "finished:completed":
        raise ValueError(
            (error or f"the run ended as {status}; its log is {folder / 'run.log'}").removeprefix("error: ")
        )
    add_traffic(farm, folder, run_id)
    return folder


def add_traffic(farm: Farm, folder: Path, run_id: str) -> None:
    """Put what the proxies counted, and Flower's own count, into report.json, and print the table."""
    path = folder / "report.json"
    report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    listed = farm.flwr("ls", "--run-id", run_id)["runs"][0]
    counted = {user: list(device.proxy.exchanges) for user, device in farm.devices.items()}
    links = {user: device.link.carried() for user, device in farm.devices.items() if device.link}
    report["bytes"]["measured"] = device_traffic.compare(
        counted, folder / "bytes.csv", flower=listed.get("network-traffic"), tls=farm.tls, links=links
    )
    write_text(path, as_json(report))
    print(device_traffic.table(report["bytes"]["measured"]))


def use_namespaces(wanted: bool | None) -> bool:
    """Whether devices get network namespaces; None: where it can be. Raises ValueError where it must and can't."""
    if wanted is False:
        return False
    why = network_namespaces.problem()
    if why and wanted:
        raise ValueError(f"--namespaces: network namespaces cannot be made here ({why})")
    if why:
        print(f"no network namespaces ({why}): devices are on loopback")
    return not why


def run_devices(options: argparse.Namespace) -> Path:
    """The whole of it; returns the path of report.json. Raises ValueError."""
    forced = f'cohorts="all" min-nodes={options.devices} stage1-users=0 stage2-users=0'
    overrides = ["reply-timeout=600", *map(spelled_out, options.run_config), forced]
    settings = settings_of(options.app, overrides)
    sources.check(settings.base_source)
    corpus = open_corpus(settings.data_source, get_task(settings.task), seed=settings.seed)
    users = choose_users(corpus, options.devices)
    folder = options.folder or CHECKOUT / "runs" / "devices" / time.strftime("%Y%m%d-%H%M%S")
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"--folder must be new or empty, got {str(folder)!r}")
    with Farm(
        folder,
        tls=options.tls,
        auth=options.auth,
        threads=options.threads,
        capture=options.capture,
        namespaces=use_namespaces(options.namespaces),
    ) as farm:
        farm.start_server()
        print(
            f"SuperLink on port {farm.port}, {'TLS' if farm.tls else 'no TLS'}, "
            f"{'registered keys only' if farm.auth else 'any SuperNode'}; files in {farm.folder}"
        )
        for user in users:
            device = equip(farm, corpus, settings, user, encrypt=options.encrypt)
            farm.start(device)
            assert device.process is not None
            where = f" in network namespace {device.link.namespace}" if device.link else ""
            print(f"  {user}: SuperNode {device.process.pid}{where}, {device.node_config}")
        results = federate(farm, options.app, overrides, settings, verbose=options.verbose)
    return results / "report.json"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("app", type=Path, nargs="?", default=CHECKOUT / "sims" / "lamp7", help="folder of a Flower app")
    add("--devices", type=int, default=4, metavar="N", help="how many; each gets one user of the data (default 4)")
    add("--tls", action=argparse.BooleanOptionalAction, default=True, help="encrypt all traffic (default)")
    add("--auth", action=argparse.BooleanOptionalAction, default=True, help="registered SuperNodes only (default)")
    add(
        "--namespaces",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="each device in a network namespace of its own (default: as root with iproute2)",
    )
    add("--encrypt", action="store_true", help="seal each vault with a key file of its own")
    add("--capture", action="store_true", help="keep everything that passes, for a search; meant with --no-tls")
    add("--threads", type=int, default=max(1, (os.cpu_count() or 1) // 4), metavar="N", help="of torch, in each device")
    add("--folder", type=Path, metavar="DIR", help="of server and devices (default: runs/devices/<time>)")
    add(
        "-c",
        "--run-config",
        action="append",
        default=[],
        metavar="'KEY=VALUE …'",
        help="override settings; or a TOML file",
    )
    add("--verbose", action="store_true", help="show all of Flower's own lines")
    return parser


def main() -> int:
    options = _parser().parse_args()
    leaving.once()
    try:
        if options.devices < 1 or options.threads < 1:
            raise ValueError(f"--devices and --threads must be at least 1, got {options.devices}, {options.threads}")
        if options.auth and not options.tls:
            raise ValueError("--no-tls must come with --no-auth: a SuperLink checks keys only under TLS")
        report = run_devices(options)
    except (ValueError, OSError, subprocess.SubprocessError) as problem:
        print(f"error: {' '.join(str(problem).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
