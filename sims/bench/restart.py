"""A device's time from a message to its first training step, part by part."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from simulation.apps import CHECKOUT, SIMS

MESSAGES = ("query.hello", "train")


def measure(kind: str, run_config: dict[str, Any], node_config: dict[str, Any]) -> list[tuple[str, float, float]]:
    """One fresh process's parts. Raises ValueError where it fails."""
    started = time.time()
    # A module that imports nothing yet: what this command imports is no part of a device's time.
    command = [sys.executable, "-P", "-m", "bench.device_process", kind, repr(started)]
    command.append(json.dumps([run_config, node_config]))
    path = os.pathsep.join(filter(None, (str(SIMS), str(CHECKOUT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        raise ValueError(f"{kind} must be answered: {(done.stderr or done.stdout).strip()[-800:]}")
    return [(name, cpu, wall) for name, cpu, wall in json.loads(done.stdout.strip().splitlines()[-1])]


def medians(repeats: list[list[tuple[str, float, float]]]) -> list[tuple[str, float, float]]:
    """Part by part, and last the whole: (name, CPU seconds, wall seconds)."""
    wholes = [[*parts, ("all", sum(p[1] for p in parts), sum(p[2] for p in parts))] for parts in repeats]
    return [
        (same[0][0], median(part[1] for part in same), median(part[2] for part in same))
        for same in zip(*wholes, strict=True)
    ]


def table(kind: str, parts: list[tuple[str, float, float]], repeats: int) -> str:
    title = f"{kind}: median of {repeats} processes, {os.cpu_count()} CPUs, OMP_NUM_THREADS={_threads()}"
    shown = Table(title=title, title_justify="left", box=None)
    for name in ("part", "CPU s", "wall s"):
        shown.add_column(name, justify="left" if name == "part" else "right")
    for name, cpu, wall in parts:
        shown.add_row(name, f"{cpu:.2f}", f"{wall:.2f}")
    console = Console(width=100)
    with console.capture() as captured:
        console.print(shown)
    return captured.get().rstrip()


def _threads() -> str:
    return os.environ.get("OMP_NUM_THREADS", "unset")


def run(options: argparse.Namespace) -> dict[str, list[tuple[str, float, float]]]:
    """Measure every kind of message, in turn, so that a busy minute falls on all."""
    from fed.base.sources import resolve  # here: a process that is measured imports torch in its own time

    app = tomllib.loads((SIMS / "lamp7" / "pyproject.toml").read_text(encoding="utf-8"))
    run_config = {**app["tool"]["flwr"]["app"]["config"], "base-model": options.base_model, "dtype": options.dtype}
    shape = json.loads((Path(resolve(options.base_model)[1]) / "config.json").read_text(encoding="utf-8"))
    run_config["layers"] = ",".join(str(shape["num_hidden_layers"] * place // 4) for place in (1, 2, 3))
    with tempfile.TemporaryDirectory(prefix="perfit-restart-") as folder:
        history = Path(folder) / "history.jsonl"
        tweets = [{"text": f"tweet {n} of somebody who writes"} for n in range(8)]
        queries = [{"input": f"Paraphrase: tweet {n} of somebody", "gold": f"tweet {n} of some body"} for n in range(8)]
        history.write_text("".join(json.dumps(line) + "\n" for line in tweets + queries), encoding="utf-8")
        policy = Path(folder) / "policy.toml"
        policy.write_text("messages-a-day = 1000000\nmessages-an-hour = 1000000\nrank-share = 1.0\n", encoding="utf-8")
        node_config = {"user-id": "alice", "history": str(history), "vault": str(Path(folder) / "vault")}
        node_config |= {"policy": str(policy), "base-model": options.base_model}
        run_config["max-queries"] = 8  # a device answers no fewer
        for kind in MESSAGES:
            measure(kind, run_config, node_config)  # what is cached on disk is there from now on
        measured: dict[str, list[list[tuple[str, float, float]]]] = {kind: [] for kind in MESSAGES}
        for _ in range(options.repeats):
            for kind in MESSAGES:
                measured[kind].append(measure(kind, run_config, node_config))
    return {kind: medians(repeats) for kind, repeats in measured.items()}
