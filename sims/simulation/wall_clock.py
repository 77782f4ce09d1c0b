"""Where the time of a whole `sims/run.py` goes, from the command's start to its end.

start-up    checks of settings and data, SuperLink, `flwr run`, Flower's and Ray's start, and the greeting, in which an
            actor imports torch and loads the base model
clients     a client was at work: training, answering, reading its data, writing its vault
between     what is left of the server's part: averaging, packing, messages, polling, the report
shutdown    from the report to the command's end: Ray, Flower and the SuperLink stop
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

_USERS, _END, _SECONDS = ' "users": [\n', " ],\n", ' "seconds": {\n'  # lines of report.json, as the server writes it


def command_began() -> float:
    """When this process started, as `time.time`: its imports are part of what a user waits for."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError):
        return time.time()
    return time.time() - age


def account(report: Mapping[str, Any], began: float, ended: float) -> dict[str, float]:
    """Seconds by part, `wall` being their sum.

    Args:
        report: the run's report.json.
        began: when the command began, as `time.time`.
        ended: and when it ended.
    """
    seconds = report["seconds"]
    server = datetime.fromisoformat(report["began"]).timestamp()
    ready = server + seconds["greeting"]
    reported = server + seconds["total"]
    return {
        "wall": ended - began,
        "startup": ready - began,
        "clients": seconds["clients"],
        "between": reported - ready - seconds["clients"],
        "shutdown": ended - reported,
    }


def line(parts: Mapping[str, float], allowance: float = 20.0) -> str:
    """The account in words; the share is that of all but the clients' part, beyond `allowance` seconds of start-up."""
    outside = parts["wall"] - parts["clients"] - min(parts["startup"], allowance)
    share = outside / max(parts["wall"] - min(parts["startup"], allowance), 1e-9)
    return (
        f"{parts['wall']:.1f} s in all: start-up {parts['startup']:.1f}, clients {parts['clients']:.1f}, between "
        f"{parts['between']:.1f}, shutdown {parts['shutdown']:.1f}; {share:.1%} outside of clients beyond the first "
        f"{allowance:.0f} s of start-up"
    )


def without_users(report: Path) -> tuple[dict[str, Any], int]:
    """report.json without the scores of its users, and how many there are; they are counted and not held.

    Raises:
        ValueError: it is not as the server writes it.
    """
    from fed import strict_json  # late, as ever in `sims/run.py`: `fed` imports torch

    lines: list[str] = []
    users, inside = 0, False
    for text in _lines(report):
        users += inside and text == "  {\n"
        inside = inside and text != _END
        if not inside:
            lines.append(text)
            inside = text == _USERS
    return dict(strict_json.loads("".join(lines))), users


def add(report: Path, began: float, ended: float) -> dict[str, float] | None:
    """Put the account into the report's seconds, and return it; None of a run on devices, which has none.

    Args:
        report: report.json; its users are copied, not read.
        began: when the command began, as `time.time`.
        ended: and when it ended.
    """
    from fed import strict_json
    from fed.atomic_write import writing

    content, _ = without_users(report)
    if "clients" not in content["seconds"]:
        return None
    content["seconds"]["command"] = parts = account(content, began, ended)
    lines = _lines(report)
    with writing(report) as building, building.open("w", encoding="utf-8", newline="") as file:
        for text in lines:
            if text == _SECONDS:
                break
            file.write(text)
        rest = json.loads("{" + "".join([_SECONDS, *lines])) | {"seconds": content["seconds"]}
        file.write(strict_json.dumps(rest, indent=1).removeprefix("{\n") + "\n")
    return parts


def _lines(report: Path) -> Iterator[str]:
    with report.open(encoding="utf-8", newline="\n") as file:
        yield from file
