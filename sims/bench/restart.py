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

from fed.base import sources

MESSAGES = ("query.hello", "train")


class Marks:
    """Parts of a process's life, in order: CPU seconds of the process and wall seconds since it was started."""

    def __init__(self, started: float) -> None:
        self._cpu, self._wall = 0.0, started
        self.parts: list[tuple[str, float, float]] = []

    def mark(self, name: str) -> None:
        """What happened since the last mark was `name`."""
        cpu, wall = time.process_time(), time.time()
        self.parts.append((name, cpu - self._cpu, wall - self._wall))
        self._cpu, self._wall = cpu, wall

    def leave(self) -> None:
        """Print them and end the process here."""
        print(json.dumps(self.parts), flush=True)
        os._exit(0)


def serve(kind: str, started: float, run_config: dict[str, Any], node_config: dict[str, Any]) -> None:
    """The life of one process: to the reply of a query, or to the first step of a training."""
    marks = Marks(started)
    marks.mark("Python starts")
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    marks.mark("import Flower")
    from clients import app as app_module
    from clients.progress import Progress

    marks.mark("import torch and the app")
    from fed import methods
    from fed.base import model as base_model
    from fed.base.facts import facts
    from fed.communication import wire
    from fed.settings.settings import Settings

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    context = Context(run_id=7, node_id=2, node_config=node_config, state=RecordDict(), run_config=run_config)
    content = RecordDict()
    if kind == "train":
        settings = Settings.parse(run_config)
        method = methods.make(settings, facts(settings.base_source, dtype=settings.dtype).skeleton)
        edit = wire.pack(method.initial_collective(), settings.wire_dtype)
        content["host"] = ConfigRecord({"users": json.dumps([node_config["user-id"]])})
        content["arrays"] = ArrayRecord({"edit": Array(edit)})
        content["config"] = ConfigRecord({"server-round": 1})
    marks.mark("message and settings")

    load = base_model.load

    def load_in_parts(source: str, **how: Any) -> base_model.BaseModel:
        # The same imports and the same order as in `load`, told apart.
        import transformers
        from transformers import AutoConfig, AutoModelForCausalLM

        marks.mark("open the data")
        folder = sources.resolve(source)[1]
        assert AutoModelForCausalLM._model_mapping[type(AutoConfig.from_pretrained(folder))]
        marks.mark("import transformers' model code")
        read = transformers.AutoTokenizer.from_pretrained

        def read_tokenizer(*what: Any, **words: Any) -> Any:
            found = read(*what, **words)
            marks.mark("tokenizer")
            return found

        transformers.AutoTokenizer.from_pretrained = read_tokenizer  # type: ignore[method-assign]
        loaded = load(source, **how)
        marks.mark("weights")
        return loaded

    def first_step(*_: object) -> None:
        marks.mark("first training step")
        marks.leave()

    base_model.load = load_in_parts  # type: ignore[assignment]
    Progress.step = first_step  # type: ignore[assignment, method-assign]
    message = Message(content, dst_node_id=2, message_type=kind)
    reply = app_module.app(message, context)
    if reply.has_error():
        raise SystemExit(str(reply.error))
    marks.mark("facts and reply")
    marks.leave()


def measure(kind: str, run_config: dict[str, Any], node_config: dict[str, Any]) -> list[tuple[str, float, float]]:
    """One fresh process's parts. Raises ValueError where it fails."""
    started = time.time()
    command = [sys.executable, __file__, "--serve", kind, repr(started), json.dumps([run_config, node_config])]
    path = os.pathsep.join(filter(None, (str(CHECKOUT), os.environ.get("PYTHONPATH"))))
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
        asked = [{"input": f"Paraphrase: tweet {n} of somebody", "gold": f"tweet {n} of some body"} for n in range(8)]
        history.write_text("".join(json.dumps(line) + "\n" for line in tweets + asked), encoding="utf-8")
        node_config = {"user-id": "alice", "history": str(history), "vault": str(Path(folder) / "vault")}
        for kind in MESSAGES:
            measure(kind, run_config, node_config)  # what is cached on disk is there from now on
        found: dict[str, list[list[tuple[str, float, float]]]] = {kind: [] for kind in MESSAGES}
        for _ in range(options.repeats):
            for kind in MESSAGES:
                found[kind].append(measure(kind, run_config, node_config))
    return {kind: medians(repeats) for kind, repeats in found.items()}
