"""A federation of devices on this machine: equipped, followed, its traffic added to the report."""

from __future__ import annotations

import argparse
import json
import re
import threading
import time
from pathlib import Path
from typing import Any

from services.flower_cli import flower_cli
from simulation.apps import CHECKOUT, settings_of, spelled_out
from simulation.superlink import final_status, show_log

from farm import network_namespaces
from farm import traffic as device_traffic
from farm.device import Device
from farm.farm import Farm
from fed import strict_json
from fed.atomic_write import write_text
from fed.base import device as base_device
from fed.base import facts, sources
from fed.lamp.records import Corpus, open_corpus
from fed.lamp.tasks import get_task
from fed.plain_text import plain
from fed.privacy.sealed import new_key_file
from fed.settings.settings import Settings
from server_strategy.report.report import as_json

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
    queries = [{"id": query.id, "input": query.input, "gold": query.gold} for query in user.queries]
    record = {"user_id": user_id, "profile": list(user.profile), "query": queries}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([record], ensure_ascii=False), encoding="utf-8")
    path.chmod(0o600)


def equip(farm: Farm, corpus: Corpus, settings: Settings, user: str, *, encrypt: bool, strict: bool = False) -> Device:
    """Add a device with the user's history and an empty vault.

    Args:
        farm: the devices.
        corpus: whose users they are.
        settings: the run's.
        user: whose device this is.
        encrypt: make a key file that seals the vault.
        strict: keep the policy that a device has by itself; else it accepts every run and lets exact figures out.
    """
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
    if not strict:
        write_text(folder / "policy.toml", "open = true\n")
        config["policy"] = str(folder / "policy.toml")
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
                        print(f"  {device.user}: {plain(line)}", flush=True)

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
        with flower_cli(farm.environment("server")) as flower:
            error, _ = show_log(flower.lines("log", run_id, "--stream"), folder / "run.log", verbose)
    finally:
        follow.finish()
    while not (status := final_status(farm.flwr, run_id)).startswith("finished"):
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
    report: dict[str, Any] = strict_json.loads(path.read_text(encoding="utf-8"))
    listed = farm.flwr("ls", "--run-id", run_id)["runs"][0]
    counted = {user: list(device.proxy.exchanges) for user, device in farm.devices.items()}
    links = {user: device.link.carried() for user, device in farm.devices.items() if device.link}
    report["bytes"]["measured"] = device_traffic.compare(
        counted, folder / "bytes.csv", flower=listed.get("network-traffic"), tls=farm.tls, links=links
    )
    write_text(path, "".join(as_json(report)))
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
    base_device.check(settings.device, settings.dtype)
    sources.check(settings.base_source)
    facts.check_files(settings.base_source, settings.max_length, settings.prompt_format)
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
            device = equip(farm, corpus, settings, user, encrypt=options.encrypt, strict=options.strict)
            farm.start(device)
            assert device.process is not None
            where = f" in network namespace {device.link.namespace}" if device.link else ""
            print(f"  {user}: SuperNode {device.process.pid}{where}, {device.node_config}")
        results = federate(farm, options.app, overrides, settings, verbose=options.verbose)
    return results / "report.json"
