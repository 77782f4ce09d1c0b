"""What crossed between devices and server, measured by proxies, beside what the ledger says that messages weigh.

The ledger's wire bytes are those of a message's objects. On the wire come HTTP headers, TLS records and handshakes,
the polling of an idle SuperNode (every 3 s), heartbeats, and once a run the app's bundle. For a large message these
vanish; for a small one they are nearly all, so both are shown.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from counting_proxy import Exchange, by_path
from rich.console import Console
from rich.table import Table

LARGE = 100_000  # bytes; from here on the ledger must be within a tenth of the wire


def compare(
    counted: Mapping[str, Sequence[Exchange]], ledger: Path, *, flower: Any = None, tls: bool
) -> dict[str, Any]:
    """The report's `bytes.measured`.

    Args:
        counted: per device (user) what its proxy saw. ledger: the run's bytes.csv. flower: `network-traffic` of
        `flwr ls`, as it is.
    """
    entries: dict[tuple[str, str], list[int]] = {}
    with ledger.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            entries.setdefault((row["user"], row["direction"]), []).append(int(row["wire"]))
    devices = {}
    for user, exchanges in sorted(counted.items()):
        ways = {}
        for way in ("down", "up"):
            seen = [getattr(exchange, way) for exchange in exchanges]
            wire = entries.get((user, way), [])
            ways[way] = {
                "measured": sum(seen),
                "ledger": sum(wire),
                "large": {"measured": sum(n for n in seen if n > LARGE), "ledger": sum(n for n in wire if n > LARGE)},
                "messages": len(wire),
            }
        devices[user] = {**ways, "exchanges": len(exchanges)}
    whole: dict[str, Any] = {"tls": tls, "large_from": LARGE, "flower": flower, "devices": devices}
    if not tls:
        every = [exchange for exchanges in counted.values() for exchange in exchanges]
        whole["paths"] = {p: {"exchanges": n, "up": up, "down": down} for p, (n, up, down) in by_path(every).items()}
    return whole


def table(measured: Mapping[str, Any]) -> str:
    """The comparison as text: one row a device and way."""
    shown = Table(title="Bytes on the wire, by proxy, and by the ledger", title_justify="left", box=None)
    for name in (
        "device",
        "way",
        "measured",
        "ledger",
        "overhead",
        f"messages > {LARGE:,}: measured",
        "ledger",
        "ratio",
    ):
        shown.add_column(name, justify="left" if name in ("device", "way") else "right")
    for user, ways in measured["devices"].items():
        for way in ("down", "up"):
            cell = ways[way]
            large = cell["large"]
            ratio = f"{large['measured'] / large['ledger']:.3f}" if large["ledger"] else "–"
            shown.add_row(
                user,
                way,
                f"{cell['measured']:,}",
                f"{cell['ledger']:,}",
                f"{cell['measured'] - cell['ledger']:,}",
                f"{large['measured']:,}",
                f"{large['ledger']:,}",
                ratio,
            )
    console = Console(file=io.StringIO(), width=120)
    console.print(shown)
    for path, cell in list(measured.get("paths", {}).items())[:8]:
        console.print(
            f"  {path or 'other'}: {cell['exchanges']} × {(cell['up'] + cell['down']) // cell['exchanges']:,} B"
        )
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().rstrip()
