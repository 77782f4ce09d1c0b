"""One process of a device, as Flower starts one for a message: `bench_restart.py` reads how long its parts take.

    python -P -m bench.device_process KIND STARTED '[RUN CONFIG, NODE CONFIG]'      on PYTHONPATH: sims and the checkout

Everything is imported where a device would import it, so this module itself imports nothing but Python's own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


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
    """The life of one process: to the reply of a query, or to the first step of a training.

    Args:
        kind: of the message, `query.hello` or `train`.
        started: when the process was asked for, as `time.time`.
        run_config: the app's settings.
        node_config: the device's.
    """
    marks = Marks(started)
    marks.mark("Python starts")
    # What Flower's own process imports, and then the ClientApp.
    from flwr.app import Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    marks.mark("import Flower")
    from clients import app as app_module
    from clients.progress import Progress

    marks.mark("import torch and the app")
    # The message, as it would have come over the wire.
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    context = Context(run_id=7, node_id=2, node_config=node_config, state=RecordDict(), run_config=run_config)
    content = train_content(run_config, node_config) if kind == "train" else RecordDict()
    marks.mark("message and settings")

    # The app answers it; loading the base is told apart, and a training ends at its first optimizer step.
    def first_step(*_: object) -> None:
        marks.mark("first training step")
        marks.leave()

    mark_loading(marks)
    Progress.step = first_step  # type: ignore[assignment, method-assign]
    reply = app_module.app(Message(content, dst_node_id=2, message_type=kind), context)
    if reply.has_error():
        raise SystemExit(str(reply.error))
    marks.mark("facts and reply")
    marks.leave()


def train_content(run_config: dict[str, Any], node_config: dict[str, Any]) -> Any:
    """The records of a message "train": whose, with which collective tensors, in which round."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    from fed import methods
    from fed.base.facts import facts
    from fed.communication import wire
    from fed.settings.settings import Settings

    settings = Settings.parse(run_config)
    method = methods.make(settings, facts(settings.base_source, dtype=settings.dtype).skeleton)
    edit = wire.pack(method.initial_collective(), settings.wire_dtype)
    return RecordDict(
        {
            "host": ConfigRecord({"users": json.dumps([node_config["user-id"]])}),
            "arrays": ArrayRecord({"edit": Array(edit)}),
            "config": ConfigRecord({"server-round": 1}),
        }
    )


def mark_loading(marks: Marks) -> None:
    """From now on `fed.base.model.load` marks its parts: the same imports in the same order, told apart."""
    from fed.base import model as base_model
    from fed.base import sources

    load = base_model.load

    def load_in_parts(source: str, **how: Any) -> base_model.BaseModel:
        import transformers
        from transformers import AutoConfig, AutoModelForCausalLM

        marks.mark("open the data")
        folder = sources.resolve(source)[1]
        assert AutoModelForCausalLM._model_mapping[type(AutoConfig.from_pretrained(folder, trust_remote_code=False))]
        marks.mark("import transformers' model code")
        read = transformers.AutoTokenizer.from_pretrained

        def read_tokenizer(*what: Any, **words: Any) -> Any:
            tokenizer = read(*what, **words)
            marks.mark("tokenizer")
            return tokenizer

        transformers.AutoTokenizer.from_pretrained = read_tokenizer  # type: ignore[method-assign]
        loaded = load(source, **how)
        marks.mark("weights")
        return loaded

    base_model.load = load_in_parts  # type: ignore[assignment]


if __name__ == "__main__":
    serve(sys.argv[1], float(sys.argv[2]), *json.loads(sys.argv[3]))
