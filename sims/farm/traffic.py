"""What crossed between devices and server, measured by proxies, beside what the ledger says that messages weigh.

The ledger's wire bytes are those of a message's objects. On the wire come HTTP headers, TLS records and handshakes,
the polling of an idle SuperNode (every 3 s), heartbeats, and once a run the app's bundle. For a large message these
vanish; for a small one they are nearly all, so both are shown: the large ones beside the ledger, the small ones by what
they are for. Where a device has a link of its own, the frames on it come on top: 66 bytes of Ethernet, IP and TCP for
each segment and each acknowledgement.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from farm.counting_proxy import Exchange, by_path
from farm.network_namespaces import Carried

LARGE = 100_000  # bytes; from here on the ledger must be within a tenth of the wire
_FLEET = "/v1/fleet/"
_PURPOSE = {
    "register-node": "greeting",
    "activate-node": "greeting",
    "deactivate-node": "leave",
    "pull-messages": "polling",
    "send-node-heartbeat": "heartbeat",
    "get-run": "the run's settings",
    "get-fab": "the app's bundle",
    "pull-object": "an object of a message",
    "confirm-message-received": "message received",
    "push-messages": "announcing a reply",
    "push-object": "an object of a reply",
    "": "all kinds, unnamed under TLS",
}


def compare(
    counted: Mapping[str, Sequence[Exchange]],
    ledger: Path,
    *,
    flower: Any = None,
    tls: bool,
    links: Mapping[str, Carried] | None = None,
) -> dict[str, Any]:
    """The report's `bytes.measured`.

    Args:
        counted: per device (user) what its proxy saw.
        ledger: the run's bytes.csv.
        flower: `network-traffic` of `flwr ls`, as it is.
        tls: whether the bytes were sealed, so that paths are unknown.
        links: what crossed the link of each device that has one.
    """
    # What the ledger says: (user, direction) -> a size a message.
    entries: dict[tuple[str, str], list[int]] = {}
    with ledger.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            entries.setdefault((row["user"], row["direction"]), []).append(int(row["wire"]))
    # What each proxy, and each link, counted.
    devices = {}
    for user, exchanges in sorted(counted.items()):
        ways: dict[str, dict[str, Any]] = {}
        for way in ("down", "up"):
            seen = [getattr(exchange, way) for exchange in exchanges]
            wire = entries.get((user, way), [])
            ways[way] = {
                "measured": sum(seen),
                "ledger": sum(wire),
                "large": {"measured": sum(n for n in seen if n > LARGE), "ledger": sum(n for n in wire if n > LARGE)},
                "messages": len(wire),
            }
        if links and user in links:
            link = links[user]
            ways["down"]["link"] = {"bytes": link.down, "frames": link.frames_down}
            ways["up"]["link"] = {"bytes": link.up, "frames": link.frames_up}
        devices[user] = {**ways, "exchanges": len(exchanges)}
    # All devices together: the exchanges that carried no large object, and without TLS every path.
    every = [exchange for exchanges in counted.values() for exchange in exchanges]
    whole: dict[str, Any] = {"tls": tls, "large_from": LARGE, "flower": flower, "devices": devices}
    whole["small"] = small(every)
    if not tls:
        whole["paths"] = {p: {"exchanges": n, "up": up, "down": down} for p, (n, up, down) in by_path(every).items()}
    return whole


def small(exchanges: Sequence[Exchange]) -> list[dict[str, Any]]:
    """The exchanges that carried no large object, by path: bytes in all, and the median; most bytes first."""
    kinds: dict[str, list[Exchange]] = {}
    for exchange in exchanges:
        if max(exchange.up, exchange.down) <= LARGE:
            kinds.setdefault(exchange.path, []).append(exchange)
    rows = [
        {
            "path": path,
            "exchanges": len(ones),
            "up": sum(e.up for e in ones),
            "down": sum(e.down for e in ones),
            "median_up": int(median(e.up for e in ones)),
            "median_down": int(median(e.down for e in ones)),
        }
        for path, ones in kinds.items()
    ]
    return sorted(rows, key=lambda kind: (-kind["up"] - kind["down"], kind["path"]))


def table(measured: Mapping[str, Any]) -> str:
    """The comparison as text: one row a device and way, then one a kind of small exchange."""
    names = ["device", "way", "measured", "ledger", "overhead", f"messages > {LARGE:,}: measured", "ledger", "ratio"]
    if any("link" in ways["up"] for ways in measured["devices"].values()):
        names += ["on the link", "frames"]
    whole = _columns("Bytes on the wire, by proxy, and by the ledger", names, 2)
    for user, ways in measured["devices"].items():
        for way in ("down", "up"):
            cell = ways[way]
            large = cell["large"]
            ratio = f"{large['measured'] / large['ledger']:.3f}" if large["ledger"] else "–"
            numbers = [cell["measured"], cell["ledger"], cell["measured"] - cell["ledger"]]
            numbers += [large["measured"], large["ledger"]]
            link = [f"{cell['link'][name]:,}" for name in ("bytes", "frames")] if "link" in cell else []
            whole.add_row(user, way, *(f"{number:,}" for number in numbers), ratio, *link)
    names = ["for", "path", "exchanges", "up, median", "down, median", "up, all", "down, all"]
    rest = _columns(f"Exchanges of at most {LARGE:,} bytes each way, all devices", names, 2)
    for kind in measured["small"]:
        path = kind["path"].removeprefix(_FLEET)
        numbers = [kind[name] for name in ("exchanges", "median_up", "median_down", "up", "down")]
        rest.add_row(_PURPOSE.get(path, "other"), path or "–", *(f"{number:,}" for number in numbers))
    console = Console(file=io.StringIO(), width=140)
    console.print(whole)
    console.print(rest)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _columns(title: str, names: Sequence[str], words: int) -> Table:
    """An empty table; its first columns hold words and the others numbers."""
    shown = Table(title=title, title_justify="left", box=None)
    for place, name in enumerate(names):
        shown.add_column(name, justify="left" if place < words else "right")
    return shown
