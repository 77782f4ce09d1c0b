"""Four devices that answer at once with canned replies, and one of them lies: the server's own code runs on them whole.

No base model is loaded, no row is read: what a device sends is made up here, from what the server sent it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fed import methods
from fed.base.skeleton import Skeleton
from fed.communication import changes, wire
from fed.privacy.tensor_files import fingerprint
from fed.randomness import generator
from fed.settings.settings import Settings
from server_strategy.grid.edits.translation import Translation
from server_strategy.run import run

FIRST, DEVICES = 1000, 4
LIAR = FIRST + 2  # neither the first nor the last to answer
USERS = [f"user-{place}" for place in range(DEVICES)]
SKELETON = Skeleton("tiny", 50_000, 32, 4, (("q", 32, 32), ("v", 8, 32)))
ROWS, QUERIES = 5, 2
LATE = ("query.adopt", "train.personalize", "evaluate")
# Neither base model nor data is here: the server needs no copy, and devices have their own.
FOUR = {"base_model": "/nowhere", "data": "/nowhere", "cohorts": "all", "min_nodes": 4, "rounds": 1}
Lie = Callable[[RecordDict, Message], "RecordDict | Message"]


def greeting(place: int) -> RecordDict:
    """What the device at this place says of itself."""
    base = {
        "name": SKELETON.name,
        "parameters": SKELETON.parameters,
        "hidden_size": SKELETON.hidden_size,
        "layers": SKELETON.layers,
        "dtype": "float32",
        "device": "cpu",
        "fingerprint": "0123456789abcdef",
    }
    users = {"stage1": [[USERS[place], ROWS]], "stage2": [[USERS[place], ROWS, QUERIES]]}
    texts = {"users": json.dumps(users), "base": json.dumps(base), "linears": json.dumps(SKELETON.linears)}
    return RecordDict({"node": ConfigRecord({"part": 0, "parts": 0, **texts})})


def trained(start: np.ndarray, place: int) -> np.ndarray:
    """What the device at this place makes of an edit."""
    return start + 0.1 * np.random.default_rng(place).standard_normal(start.size).astype(start.dtype)


class Canned:
    """A Grid of those devices.

    Args:
        settings: the run's.
        lies: message type -> what a liar makes of its honest reply.
        liars: which nodes lie.
    """

    def __init__(self, settings: Settings, lies: dict[str, Lie] | None = None, liars: Sequence[int] = (LIAR,)) -> None:
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
        self._settings, self._lies, self._liars, self._sent = settings, lies or {}, liars, 0
        self.refusals: dict[int, str] = {}
        self._shapes = methods.make(settings, SKELETON).collective_shapes()
        self._translation = Translation.of(self._shapes, settings)

    def get_node_ids(self) -> list[int]:
        return list(range(FIRST, FIRST + DEVICES))

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = f"m{self._sent}"
            meta = message.metadata
            if meta.message_type == "query.refused":
                self.refusals[meta.dst_node_id] = str(message.content.config_records["refusal"]["reason"])
            content: Any = self.honest(message, meta.dst_node_id - FIRST)
            if meta.dst_node_id in self._liars and meta.message_type in self._lies:
                content = self._lies[meta.message_type](content, message)
            replies.append(Message(content, reply_to=message) if isinstance(content, RecordDict) else content)
        return replies[::-1]

    def _travelling(self, start: np.ndarray, end: np.ndarray) -> np.ndarray:
        """A trained edit as it travels: whole, or as the change from the one that was sent."""
        if self._translation.packing is None:
            return end
        of = [self._translation.from_record(ArrayRecord({"edit": Array(edit)})) for edit in (start, end)]
        return changes.sent(*of, self._translation.packing, generator("canned")).packed

    def honest(self, message: Message, place: int) -> RecordDict:
        """What the device at this place answers."""
        kind = message.metadata.message_type
        if kind == "query.hello":
            return greeting(place)
        if kind == "train":
            start = message.content.array_records["arrays"]["edit"].numpy()
            metrics = MetricRecord({"num-examples": ROWS, "train-loss": 1.0 + place})
            reply = ArrayRecord({"edit": Array(self._travelling(start, trained(start, place)))})
            return RecordDict({"0/arrays": reply, "0/metrics": metrics})
        if kind == "query.adopt":
            if "change" in message.content:  # of the broadcast that it has
                name = str(message.content.config_records["change"]["to"])
                return RecordDict({"0/node": ConfigRecord({"collective": name})})
            edit = message.content.array_records["arrays"]["edit"].numpy()
            name = fingerprint(wire.unpack(edit, self._shapes, wire.whole_dtype(self._settings.wire_dtype)))
            return RecordDict({"0/node": ConfigRecord({"collective": name})})
        if kind == "train.personalize":
            return RecordDict({"0/metrics": MetricRecord({"num-examples": ROWS, "steps": 2, "epoch-1": 1.0 + place})})
        sums = {"nll": 30.0, "tokens": 10.0, "nll_eos": 1.0, "eos_tokens": 2.0, "count": 2.0}
        sums |= {"rouge1": 0.5, "rougeL": 0.5, "cut_golds": 1.0, "reachable_rougeL": 1.5}
        by_arm = {f"{arm}/{name}": value for arm in ("base", "stage1", "stage1+2") for name, value in sums.items()}
        return RecordDict({"0/metrics": MetricRecord(by_arm)})


def serve(settings: Settings, lies: dict[str, Lie] | None = None, liars: Sequence[int] = (LIAR,)) -> dict[str, Any]:
    """The server's whole run on them; returns what report.json holds."""
    run(Canned(settings, lies, liars), settings, settings.run_folder(7))  # type: ignore[arg-type]
    return written(settings)


def written(settings: Settings) -> dict[str, Any]:
    """What report.json holds."""
    return dict(json.loads((Path(settings.run_folder(7)) / "report.json").read_text()))
