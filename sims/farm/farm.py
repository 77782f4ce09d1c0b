"""A SuperLink and its SuperNodes on one machine, each in a process, a folder and an FLWR_HOME of its own.

    farm/server/    SuperLink: flwr-home, state.db, keys, superlink.log
    farm/<user>/    SuperNode: flwr-home, history.json, vault, vault.key, node.key, supernode.log, capture

The server's folder and a device's share nothing but ca.crt and the device's public key. On request each SuperNode is in
a network namespace of its own (network_namespaces.py). Every process is started by this module and ended by its pid,
its children too, and the namespaces are removed, however the `with` is left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from console import leaving
from simulation.environment import run_folder, without_proxy
from simulation.processes import end, offspring
from simulation.superlink import flwr_json, free_port, wait_for_port

from farm.counting_proxy import CountingProxy
from farm.database import forget_deleted
from farm.device import CONNECTED, Device
from farm.keys import make_device_key, make_server_keys
from farm.network_namespaces import SERVER, Namespaces

HOST = "127.0.0.1"


class Farm:
    """A federation that can be started, hurt and stopped; a context manager.

    Args:
        folder: what it may write to; made if need be.
        tls: certificates for the SuperLink, or plain HTTP.
        auth: only SuperNodes whose key is registered.
        threads: of torch in each device.
        capture: keep all bytes that pass between devices and server.
        namespaces: each device in a network namespace, else all on loopback.
    """

    def __init__(
        self,
        folder: Path,
        *,
        tls: bool = True,
        auth: bool = True,
        threads: int = 1,
        capture: bool = False,
        namespaces: bool = False,
    ) -> None:
        self.folder, self.tls, self.auth = folder.resolve(), tls, auth
        self.namespaces = Namespaces() if namespaces else None
        self._threads, self._capture = threads, capture
        self.server = self.folder / "server"
        self.devices: dict[str, Device] = {}
        self.port = free_port()
        self.certificate: dict[str, datetime] = {}  # `begins` and `ends` of one that should not hold
        self.superlink: subprocess.Popen[bytes] | None = None
        self._homes = run_folder()  # Flower keeps sockets under its home

    def __enter__(self) -> Farm:
        try:
            if self.namespaces:
                self.namespaces.__enter__()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def keys(self) -> Path:
        return self.server / "keys"

    def environment(self, name: str) -> dict[str, str]:
        """For a process of `server` or of a device; nothing of another Flower installation reaches it."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FLWR_")}
        home = self._homes / name
        home.mkdir(parents=True, exist_ok=True)
        return without_proxy(environment, (HOST, SERVER)) | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', '')}",
            "FLWR_HOME": str(home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "PYTHONUNBUFFERED": "1",
            "OMP_NUM_THREADS": str(self._threads),
        }

    def start_server(self) -> None:
        """Make its keys and start the SuperLink. Raises ValueError where it does not come up."""
        self.server.mkdir(parents=True, exist_ok=True)
        command = ["flower-superlink", "--host", HOST, "--port", str(self.port), "--isolation", "subprocess"]
        command += ["--database", str(self.server / "state.db"), "--disable-runtime-dependency-installation"]
        if self.tls:
            hosts = ["localhost", HOST, *([SERVER] if self.namespaces else [])]
            make_server_keys(self.keys, hosts, **self.certificate)
            for option, name in (("ca-certfile", "ca.crt"), ("certfile", "server.crt"), ("keyfile", "server.key")):
                command += [f"--ssl-{option}", str(self.keys / name)]
        else:
            command += ["--insecure"]
        if self.auth:
            command += ["--enable-supernode-auth"]
        with leaving.held():
            self.superlink = self._start(command, "server", self.server / "superlink.log")
        wait_for_port(self.port, self.superlink, self.server / "superlink.log")
        safety = f"root-certificates = {json.dumps(str(self.keys / 'ca.crt'))}" if self.tls else "insecure = true"
        (Path(self.environment("server")["FLWR_HOME"]) / "config.toml").write_text(
            f'[superlink]\ndefault = "devices"\n\n[superlink.devices]\naddress = "{HOST}:{self.port}"\n{safety}\n'
        )

    def flwr(self, *arguments: str) -> dict[str, Any]:
        """`flwr …` at the server, as JSON. Raises ValueError with Flower's words where it fails."""
        return flwr_json(self.environment("server"), *arguments)

    def add(self, user: str, config: Mapping[str, str], *, register: bool = True) -> Device:
        """A device that is not running yet: its folder, key pair, link and proxy; its public key is registered."""
        folder = self.folder / user
        folder.mkdir(parents=True, exist_ok=True)
        capture = folder / "capture" if self._capture else None
        if capture:
            capture.mkdir()
        link = self.namespaces.join() if self.namespaces else None
        proxy = CountingProxy((HOST, self.port), capture, link.listener() if link else None).__enter__()
        device = self.devices[user] = Device(user, folder, dict(config), proxy, link)
        if self.auth:
            public = make_device_key(folder / "node.key")
            if register:
                self.flwr("supernode", "register", str(public))
        return device

    def start(self, device: Device) -> None:
        """Start its SuperNode; once more after `kill`, with the same key, folder and vault."""
        device.starts += 1
        address = f"{SERVER if device.link else HOST}:{device.proxy.port}"
        command = ["flower-supernode", "--superlink", address, "--isolation", "subprocess"]
        command += ["--port", str(free_port()), "--node-config", device.node_config]
        if not self.tls:
            command += ["--insecure"]
        elif "--root-certificates" not in device.extra:
            command += ["--root-certificates", str(self.keys / "ca.crt")]
        if self.auth:
            command += ["--auth-supernode-private-key", str(device.folder / "node.key")]
        command += device.extra
        if device.link:
            command = device.link.command(command)
        with leaving.held():
            device.process = self._start(command, device.user, device.log)

    def start_until_connected(self, device: Device, seconds: float = 120) -> None:
        """Start it again and again until the server takes it, as systemd does (`Restart=on-failure`).

        A device that was killed is still online to the server until it has missed two heartbeats (60 s), and a second
        SuperNode with its key is turned away until then. Raises ValueError after `seconds`.
        """
        deadline = time.monotonic() + seconds
        before = device.log.read_text(errors="replace").count(CONNECTED) if device.log.exists() else 0
        while time.monotonic() < deadline:
            if device.process is None or device.process.poll() is not None:
                self._stop([device.process])
                self.start(device)
            time.sleep(0.5)
            if device.log.read_text(errors="replace").count(CONNECTED) > before:
                return
        raise ValueError(f"the SuperNode of {device.user!r} must connect within {seconds} s; its log is {device.log}")

    def kill(self, device: Device) -> None:
        """SIGKILL, to the SuperNode and all its children at once, as when a device loses its power."""
        assert device.process is not None
        for pid in offspring(device.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        device.process.wait()
        device.process = None

    def restart(self, device: Device) -> None:
        """An orderly stop, in which the SuperNode takes leave of the server, and a new start."""
        self._stop([device.process])
        self.start(device)

    def stop(self) -> None:
        """End every process by its pid, devices first, and remove the namespaces; returns when none is left."""
        try:
            self._stop([device.process for device in self.devices.values()])
            self._stop([self.superlink])
            for device in self.devices.values():
                device.proxy.__exit__()
                device.process = None
            if self.superlink is not None:
                with suppress(sqlite3.Error):  # of a SuperLink that never came up
                    forget_deleted(self.server / "state.db")
            self.superlink = None
        finally:
            if self.namespaces:
                self.namespaces.__exit__()
            shutil.rmtree(self._homes, ignore_errors=True)

    def _stop(self, processes: Sequence[subprocess.Popen[bytes] | None]) -> None:
        """SIGTERM to processes, then whatever it takes, also to what outlives them (a SuperExec does)."""
        running = [process for process in processes if process is not None]
        families = [offspring(process.pid) for process in running]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        for members in families:
            end(members)

    def _start(self, command: list[str], name: str, log: Path) -> subprocess.Popen[bytes]:
        environment = self.environment(name)
        opened: IO[bytes]
        with log.open("ab") as opened:
            return subprocess.Popen(
                command,
                env=environment,
                umask=0o077,  # the server's database and its journal hold all messages; so do logs and vaults much
                cwd=log.parent,
                stdout=opened,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                executable=shutil.which(command[0], path=environment["PATH"]),
                start_new_session=True,  # Ctrl-C reaches the script alone, which then stops them in order
            )
