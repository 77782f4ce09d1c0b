"""A TCP proxy between one device and the server that counts every byte which passes, and can keep them.

It knows no TLS: what is counted are the bytes on the wire, headers and handshakes among them. Flower's HTTP clients
send a request, wait for the answer and then send the next, so a connection is a series of exchanges, told apart by the
turns of direction; without TLS an exchange also has a name, the path of its request.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CHUNK = 1 << 16


@dataclass
class Exchange:
    """One request and its answer on one connection; bytes each way. `path` is "" under TLS."""

    path: str = ""
    up: int = 0
    down: int = 0


class CountingProxy:
    """Listens on a port of its own (`port`) and forwards to `target`; a context manager.

    Args:
        target: host and port of the server.
        capture: a folder for everything that passed, two files a connection (`<n>-up`, `<n>-down`); None keeps nothing.
        listener: a listening socket, which the proxy closes; None makes one on loopback.
    """

    def __init__(
        self, target: tuple[str, int], capture: Path | None = None, listener: socket.socket | None = None
    ) -> None:
        self._target, self._capture = target, capture
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.exchanges: list[Exchange] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._count = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> CountingProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._listener.close()

    @property
    def totals(self) -> tuple[int, int]:
        """(bytes up, bytes down) so far."""
        with self._lock:
            return sum(e.up for e in self.exchanges), sum(e.down for e in self.exchanges)

    def large(self, limit: int) -> tuple[int, int]:
        """(bytes up, bytes down) of the exchanges that carried more than `limit` bytes that way."""
        with self._lock:
            up = sum(e.up for e in self.exchanges if e.up > limit)
            return up, sum(e.down for e in self.exchanges if e.down > limit)

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                ready, _, _ = select.select([self._listener], [], [], 0.5)
                if not ready:
                    continue
                client, _ = self._listener.accept()
            except (OSError, ValueError):
                return
            self._count += 1
            threading.Thread(target=self._serve, args=(client, self._count), daemon=True).start()

    def _serve(self, client: socket.socket, number: int) -> None:
        try:
            server = socket.create_connection(self._target, timeout=10)
        except OSError:
            client.close()
            return
        files = [
            (self._capture / f"{number:05d}-{way}").open("wb") if self._capture else None for way in ("up", "down")
        ]
        current: Exchange | None = None
        try:
            while not self._closing.is_set():
                ready, _, _ = select.select([client, server], [], [], 0.5)
                for source in ready:
                    data = source.recv(CHUNK)
                    if not data:
                        return
                    upward = source is client
                    with self._lock:
                        if current is None or (upward and current.down):
                            current = Exchange(_path(data) if upward else "")
                            self.exchanges.append(current)
                        if upward:
                            current.up += len(data)
                        else:
                            current.down += len(data)
                    if file := files[0 if upward else 1]:
                        file.write(data)
                        file.flush()
                    (server if upward else client).sendall(data)
        except OSError:
            pass  # one side went away in the middle, as a killed device does
        finally:
            for end in (client, server):
                with suppress(OSError):
                    end.close()
            for file in files:
                if file:
                    file.close()


def _path(data: bytes) -> str:
    """The path of an HTTP request; "" for anything else, such as TLS."""
    words = data[:2048].split(b"\r\n", 1)[0].split(b" ")
    return words[1].decode("latin-1") if len(words) == 3 and words[2].startswith(b"HTTP/") else ""


def by_path(exchanges: Sequence[Exchange]) -> dict[str, tuple[int, int, int]]:
    """Path -> (exchanges, bytes up, bytes down), the largest first."""
    totals: dict[str, tuple[int, int, int]] = {}
    for e in exchanges:
        count, up, down = totals.get(e.path, (0, 0, 0))
        totals[e.path] = (count + 1, up + e.up, down + e.down)
    return dict(sorted(totals.items(), key=lambda item: -item[1][1] - item[1][2]))
