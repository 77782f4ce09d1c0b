"""Devices in network namespaces of their own, each joined to the server by one link and by nothing else.

    this machine                    <run>-hub                                     <run>-1
    SuperLink, 127.0.0.1  <-------  proxy, 10.66.0.1, on link1  ==== veth ====    eth0, 10.66.0.2: SuperNode

The hub holds the server's ends of all links and nothing but the proxies' listening sockets: a socket stays in the
namespace in which it was made, so the proxies themselves run outside and carry bytes on to the SuperLink. A device has
one route, to that one address, and the hub forwards nothing. All addresses and interfaces are inside namespaces, so
they collide with nothing on the machine; the namespaces' names hold the process id and a random number.

Needs root and iproute2. Absent on purpose: a bridge (devices need not meet), name service, IPv6.
"""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

SERVER = "10.66.0.1"  # one address for the server on every link; RFC 1918, and seen by nobody outside the namespaces
_ADMINISTRATORS = f"/usr/sbin{os.pathsep}/sbin"  # an ordinary PATH may lack them, and `ip` is there
_NAMED = Path("/var/run/netns")  # where iproute2 keeps them
_CLONE_NEWNET = 0x40000000
_SO_BINDTODEVICE = 25


T = TypeVar("T")


class NamespaceError(ValueError):
    """The kernel or `ip` refused; the text is theirs."""


@dataclass(frozen=True)
class Carried:
    """What crossed a link, by its interface's counters: whole Ethernet frames, handshakes and acknowledgements too."""

    up: int
    down: int
    frames_up: int
    frames_down: int


@dataclass(frozen=True)
class Link:
    """One device's namespace, and its link to the server."""

    namespace: str
    hub: str
    interface: str  # the server's end

    def command(self, command: Sequence[str]) -> list[str]:
        """The command inside the device's namespace; `ip` becomes the command, so the pid is the command's."""
        return [_binary(), "netns", "exec", self.namespace, *command]

    def listener(self) -> socket.socket:
        """A listening socket at the server's address that only this device reaches."""

        def listen() -> socket.socket:
            opened = socket.socket()
            try:
                opened.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, self.interface.encode() + b"\0")
                opened.bind((SERVER, 0))
                opened.listen()
            except OSError:
                opened.close()
                raise
            return opened

        return _inside(self.hub, listen)

    def carried(self) -> Carried:
        """The counters so far. Raises NamespaceError where the link is gone."""
        (shown,) = json.loads(_ip("-n", self.hub, "-s", "-j", "link", "show", "dev", self.interface))
        received, sent = shown["stats64"]["rx"], shown["stats64"]["tx"]
        return Carried(received["bytes"], sent["bytes"], received["packets"], sent["packets"])


class Namespaces:
    """A hub, and one namespace for each `join`; a context manager that leaves none of them behind."""

    def __init__(self) -> None:
        self.run = f"perfit-{os.getpid()}-{secrets.token_hex(3)}"
        self._links: list[Link] = []

    @property
    def hub(self) -> str:
        return f"{self.run}-hub"

    def __enter__(self) -> Namespaces:
        try:
            _add(self.hub)
            # A new namespace takes the machine's own setting; a hub that forwards would join the devices.
            _inside(self.hub, lambda: Path("/proc/sys/net/ipv4/ip_forward").write_text("0"))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for link in self._links:
            with suppress(NamespaceError):  # its other end goes with it, even if a process holds the namespace
                _ip("-n", link.hub, "link", "delete", link.interface)
        self._links.clear()
        for name in named():  # by name, not from a list: an `ip` that was interrupted may have made one
            if name.startswith(f"{self.run}-"):
                with suppress(NamespaceError):
                    _ip("netns", "delete", name)

    def join(self) -> Link:
        """One more namespace, joined to the hub. Raises NamespaceError; what was half made goes with the context."""
        number = len(self._links) + 1
        link = Link(f"{self.run}-{number}", self.hub, f"link{number}")
        self._links.append(link)
        address = f"10.66.{(number + 1) // 256}.{(number + 1) % 256}"
        _add(link.namespace)
        _ip("-n", self.hub, "link", "add", link.interface, "type", "veth", "peer", "eth0", "netns", link.namespace)
        ends = ((self.hub, link.interface, SERVER, address), (link.namespace, "eth0", address, SERVER))
        for namespace, interface, here, there in ends:
            # Of one segment a frame, as a real link carries them: else the kernel hands 64 kB over under one header.
            _ip("-n", namespace, "link", "set", interface, "gso_max_segs", "1", "addrgenmode", "none")
            _ip("-n", namespace, "address", "add", here, "peer", f"{there}/32", "dev", interface)
            _ip("-n", namespace, "link", "set", interface, "up")
        return link


def problem() -> str:
    """Why no namespaces can be made here, in a few words; "" where they can: one is made, joined and removed."""
    if os.geteuid() != 0:
        return "they need root"
    try:
        with Namespaces() as trial:
            trial.join().listener().close()
    except (NamespaceError, OSError) as error:
        return " ".join(str(error).split())
    return ""


def named() -> list[str]:
    """The machine's named network namespaces."""
    return sorted(path.name for path in _NAMED.iterdir()) if _NAMED.is_dir() else []


def _add(namespace: str) -> None:
    _ip("netns", "add", namespace)
    _ip("-n", namespace, "link", "set", "lo", "up")  # a SuperNode reaches its own processes there


def _binary() -> str:
    """The path of iproute2's `ip`."""
    path = shutil.which("ip", path=f"{os.environ.get('PATH', '')}{os.pathsep}{_ADMINISTRATORS}")
    if not path:
        raise NamespaceError("they need `ip` of iproute2")
    return path


def _ip(*arguments: str) -> str:
    # In a session of its own, so that Ctrl-C does not end it half way; it takes milliseconds.
    done = subprocess.run([_binary(), *arguments], capture_output=True, text=True, start_new_session=True)
    if done.returncode:
        raise NamespaceError(f"ip {' '.join(arguments)}: {done.stderr.strip() or f'code {done.returncode}'}")
    return done.stdout


def _inside(namespace: str, do: Callable[[], T]) -> T:
    """What `do` returns, called by a thread that has entered the namespace and then ends."""

    def enter() -> T:
        with (_NAMED / namespace).open() as opened:
            if ctypes.CDLL(None, use_errno=True).setns(opened.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
        return do()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(enter).result()
