"""Malformed messages, by what is wrong with them: 48 replies of stage 1, 43 greetings, 27 later replies.

Each is a function of the honest reply and the request, and the words that the error must name the breach by.
"""

from __future__ import annotations

import json
import math
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from tests.server_strategy.screening.canned import LATE, Lie

Table = dict[str, tuple[Lie, str]]


def header(array: np.ndarray, **changes: Any) -> bytes:
    """The array's bytes behind an npy header that says something else."""
    buffer = BytesIO()
    said = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape} | changes
    np.lib.format.write_array_header_1_0(buffer, said)
    return buffer.getvalue() + array.tobytes()


# Stage 1: what is done to the edit, to the numbers, to the records


def edited(change: Any) -> Lie:
    """Another Array in place of the edit: change(its numbers) -> numbers, or an Array."""

    def lie(content: RecordDict, _: Message) -> RecordDict:
        new = change(content.array_records["0/arrays"]["edit"].numpy().copy())
        array = new if isinstance(new, Array) else Array(new)
        return RecordDict({**content, "0/arrays": ArrayRecord({"edit": array})})

    return lie


def at(place: int, value: float) -> Any:
    def change(edit: np.ndarray) -> np.ndarray:
        edit[place] = value
        return edit

    return change


def described(dtype: str | None = None, shape: Any = None, stype: str | None = None, data: Any = None) -> Any:
    """An Array that says these of itself, the rest as the honest one."""

    def change(edit: np.ndarray) -> Array:
        honest = Array(edit)
        new = data(edit) if callable(data) else data
        return Array(
            dtype or honest.dtype,
            honest.shape if shape is None else shape,
            stype or honest.stype,
            honest.data if new is None else new,
        )

    return change


def numbers(record: str = "0/metrics", **changes: Any) -> Lie:
    """Other numbers in a record of metrics, by field with `_` for `-`; None takes one away."""

    def lie(content: RecordDict, _: Message) -> RecordDict:
        values: dict[str, Any] = dict(content.metric_records[record])
        for name, value in changes.items():
            values[name.replace("_", "-")] = value
        return RecordDict({**content, record: MetricRecord({k: v for k, v in values.items() if v is not None})})

    return lie


def records(**changes: Any) -> Lie:
    """Other records, `__` for `/`; None takes one away."""

    def lie(content: RecordDict, _: Message) -> RecordDict:
        new: dict[str, Any] = {**content, **{key.replace("__", "/"): value for key, value in changes.items()}}
        return RecordDict({key: value for key, value in new.items() if value is not None})

    return lie


def replaced(content: RecordDict) -> Lie:
    return lambda _content, _message: content


def no_content(_: RecordDict, message: Message) -> Message:
    reply = Message(RecordDict(), reply_to=message)
    reply.__dict__["_content"] = None
    return reply


def bundle(places: Any, rows: Any = None, **more: Any) -> Lie:
    """The one user's reply as a bundle for many, with these places."""

    def lie(content: RecordDict, _: Message) -> RecordDict:
        edit = content.array_records["0/arrays"]["edit"].numpy()
        metrics = {f"0/{key}": value for key, value in content.metric_records["0/metrics"].items()}
        packed: dict[str, Any] = {
            "users/arrays/0": ArrayRecord({"edit": Array(np.stack([edit]) if rows is None else rows(edit))}),
            "users/places": places,
            "users/metrics": MetricRecord(metrics),
        }
        return RecordDict({key: value for key, value in {**packed, **more}.items() if value is not None})

    return lie


STAGE1: Table = {
    # the edit's numbers
    "NaN": (edited(at(3, math.nan)), "must be finite"),
    "infinity": (edited(at(0, math.inf)), "must be finite"),
    "minus infinity": (edited(at(-1, -math.inf)), "must be finite"),
    "a hundred times the edit": (edited(lambda e: e * 100), "norm-bound"),
    "the largest numbers": (edited(lambda e: np.full_like(e, 3e38)), "norm-bound"),
    # its shape
    "one number short": (edited(lambda e: e[:-1]), "must have shape"),
    "one number more": (edited(lambda e: np.append(e, e[:1])), "must have shape"),
    "no number": (edited(lambda e: e[:0]), "must have shape"),
    "two dimensions": (edited(lambda e: e.reshape(1, -1)), "must have shape"),
    "no dimension": (edited(lambda e: e.sum()[None].reshape(())), "must have shape"),
    # its dtype
    "float64": (edited(lambda e: e.astype("float64")), "must travel as float32"),
    "float16": (edited(lambda e: e.astype("float16")), "must travel as float32"),
    "whole numbers": (edited(lambda e: e.astype("int32")), "must travel as float32"),
    "complex numbers": (edited(lambda e: e.astype("complex64")), "must travel as float32"),
    "the other byte order": (edited(lambda e: e.astype(">f4")), "must travel as float32"),
    "texts": (edited(lambda e: e.astype("U3")), "must travel as float32"),
    # what the Array says of itself
    "a shape of 10**12 in Flower's words": (edited(described(shape=(10**12,))), "must have shape"),
    "a negative shape": (edited(described(shape=(-1,))), "must have shape"),
    "a shape of 10**12 in the header": (
        edited(described(data=lambda e: header(e, shape=(10**12,)))),
        "header of an edit must say",
    ),
    "a dtype in the header alone": (
        edited(described(data=lambda e: header(e, descr="<i4"))),
        "header of an edit must say",
    ),
    "objects in the header": (edited(described(data=lambda e: header(e, descr="|O"))), "header of an edit must say"),
    "a header that is no npy": (edited(described(data=lambda e: b"PK\x03\x04" + e.tobytes())), "header of an edit"),
    "a header that breaks its reader": (
        edited(described(data=lambda e: b"\x93NUMPY\x01\x00\xc8\x00" + b"(" * 200 + e.tobytes())),
        "header of an edit",
    ),
    "no bytes": (edited(described(data=b"")), "must hold"),
    "bytes that end early": (edited(described(data=lambda e: Array(e).data[:-200])), "must hold"),
    "bytes after the last": (edited(described(data=lambda e: Array(e).data + b"\0" * 9)), "header of an edit"),
    "another serialization": (edited(described(stype="pickle")), "must be serialized as"),
    "a dtype that is none": (edited(described(dtype="\x1b[31m")), "must travel as float32"),
    # the metrics
    "10**12 examples": (numbers(num_examples=10**12), "num-examples must be a whole number in 1.."),
    "no example": (numbers(num_examples=0), "num-examples must be a whole number in 1.."),
    "a negative number of examples": (numbers(num_examples=-5), "num-examples must be a whole number in 1.."),
    "half an example": (numbers(num_examples=1.5), "num-examples must be a whole number in 1.."),
    "NaN examples": (numbers(num_examples=math.nan), "num-examples must be a whole number in 1.."),
    "a list of examples": (numbers(num_examples=[1, 2]), "num-examples must be a whole number in 1.."),
    "examples left out": (numbers(num_examples=None), "metrics must have num-examples"),
    "a loss of NaN": (numbers(train_loss=math.nan), "train-loss must be a finite number"),
    "an infinite loss": (numbers(train_loss=math.inf), "train-loss must be a finite number"),
    "a negative loss": (numbers(train_loss=-1.0), "train-loss must be a finite number"),
    "a list of losses": (numbers(train_loss=[1.0]), "train-loss must be a number"),
    "one more number": (numbers(extra=1.0), "metrics must have no other field"),
    # the records
    "no edit": (records(**{"0__arrays": None}), "must have arrays"),
    "no metrics": (records(**{"0__metrics": None}), "must have metrics"),
    "nothing": (replaced(RecordDict()), "must have arrays, metrics"),
    "no content": (no_content, "must have content"),
    "two arrays": (
        lambda c, _: RecordDict({**c, "0/arrays": ArrayRecord({**c["0/arrays"], "more": Array(np.zeros(2))})}),
        "arrays must have no other field",
    ),
    "metrics in place of the edit": (records(**{"0__arrays": MetricRecord({"edit": 1.0})}), "must be an ArrayRecord"),
    "the record of a user that was not asked": (
        records(**{"1__metrics": MetricRecord({"num-examples": 5})}),
        "must begin with a user's place below 1",
    ),
    "a megabyte of text": (records(**{"0__note": ConfigRecord({"x": "y" * (1 << 20)})}), "must have at most"),
}

PACKED: Table = {
    "a bundle's place that is none": (bundle(ConfigRecord({"0": "[7]"})), "a user's place must be a whole number"),
    "a bundle's place twice": (bundle(ConfigRecord({"0": "[0]", "1": "[0]"})), "must name each place once"),
    "places that are no JSON": (bundle(ConfigRecord({"0": "[[[[" * 9})), "users/places must be a JSON text"),
    "places that are no list": (bundle(ConfigRecord({"0": "0"})), "must be lists of places"),
    "no places": (bundle(None), "must have shape"),
    "more rows than places": (bundle(ConfigRecord({"0": "[0]"}), lambda e: np.stack([e, e])), "must have shape"),
    "places as numbers": (bundle(MetricRecord({"0": 0})), "users/places must be a JSON text"),
    "a field of nobody": (
        bundle(ConfigRecord({"0": "[0]"}), **{"users/metrics": MetricRecord({"x/num-examples": 5})}),
        "must begin with a user's place",
    ),
    "when it was at work": (
        records(timing=MetricRecord({"began": 0.0, "ended": 1e9})),
        "must begin with a user's place",
    ),
    "an error and an edit": (
        records(**{"0__error": ConfigRecord({"reason": "x"})}),
        "a failed reply must have no other",
    ),
    "an error without a reason": (replaced(RecordDict({"0/error": ConfigRecord({"x": 1})})), "error must have reason"),
}


# Greetings


def node(**changes: Any) -> Lie:
    """Other fields of the greeting; None takes one away."""

    def lie(content: RecordDict, _: Message) -> RecordDict:
        values = {**content.config_records["node"], **changes}
        return RecordDict({"node": ConfigRecord({key: value for key, value in values.items() if value is not None})})

    return lie


def users(stage1: Any = None, stage2: Any = None, **more: Any) -> Lie:
    """Other users, in JSON."""

    def lie(content: RecordDict, message: Message) -> RecordDict:
        said = json.loads(str(content.config_records["node"]["users"]))
        said |= {key: value for key, value in (("stage1", stage1), ("stage2", stage2)) if value is not None} | more
        return node(users=json.dumps(said))(content, message)  # type: ignore[return-value]

    return lie


def base(**changes: Any) -> Lie:
    """Other facts of the base model, in JSON; `...` takes one away."""

    def lie(content: RecordDict, message: Message) -> RecordDict:
        said = json.loads(str(content.config_records["node"]["base"])) | changes
        return node(base=json.dumps({key: value for key, value in said.items() if value is not ...}))(content, message)  # type: ignore[return-value]

    return lie


MANY = [[f"u{n}", 1] for n in range(1000)]
GREETINGS: Table = {
    # the records
    "nothing": (replaced(RecordDict()), "must have node"),
    "no content": (no_content, "must have content"),
    "metrics in place of the node": (
        replaced(RecordDict({"node": MetricRecord({"part": 0})})),
        "must be a ConfigRecord",
    ),
    "one more record": (records(more=ConfigRecord({})), "must have no other field"),
    "one more field": (node(more="x"), "must have no other field"),
    "when it was at work": (records(timing=MetricRecord({"began": 0.0, "ended": 1.0})), "must not say when"),
    "no parts": (node(parts=None), "must have parts"),
    "no users": (node(users=None), "must have users"),
    "no base": (node(base=None), "must have base"),
    "no linears": (node(linears=None), "must have linears"),
    # which node it is
    "parts as a text": (node(parts="4"), "parts must be a whole number"),
    "negative parts": (node(parts=-1), "parts must be a whole number"),
    "10**12 parts": (node(parts=10**12), "parts must be a whole number"),
    "a device that says it is one of five": (node(parts=5, part=2), "parts must be 0, as most nodes say"),
    "a part that is none": (node(part=3), "part must be a whole number in 0..0"),
    "a part that is true": (node(part=True), "part must be a whole number"),
    # its users
    "users that are no JSON": (node(users="{"), "users must be JSON"),
    "users 1,500 lists deep": (node(users="[" * 1500), "users must be JSON"),
    "users as bytes": (node(users=b"{}"), "users must be a JSON text"),
    "users as a list": (node(users="[]"), "users must be a record"),
    "a thousand users on a device": (users(stage1=MANY), "users must be a JSON text of at most"),
    "two users on a device": (users(stage1=[["a", 1]], stage2=[["b", 1, 1]]), "a device must host one user"),
    "a user twice": (users(stage1=[["a", 1], ["a", 2]]), "must be a list of at most 1 rows"),
    "no user": (users(stage1=[], stage2=[]), "a device must host a user"),
    "a user without a name": (users(stage1=[["", 1]]), "a user id must be a plain text"),
    "a user that colours the terminal": (users(stage1=[["\x1b[31mred", 1]]), "a user id must be a plain text"),
    "a user of two lines": (users(stage1=[["a\nerror: b", 1]]), "a user id must be a plain text"),
    "a user of a lone surrogate": (
        node(users='{"stage1": [["\\ud800", 1]], "stage2": []}'),
        "a user id must be a plain",
    ),
    "a user of 300 letters": (users(stage1=[["a" * 300, 1]]), "a user id must be a plain text"),
    "a user that is a number": (users(stage1=[[7, 1]]), "a user id must be a plain text"),
    "10**12 rows": (users(stage1=[["user-2", 10**12]]), "stage 1's rows of"),
    "NaN rows": (node(users='{"stage1": [["user-2", NaN]], "stage2": []}'), "must hold finite numbers"),
    "negative queries": (users(stage2=[["user-2", 5, -1]]), "queries of"),
    "rows of four values": (users(stage1=[["user-2", 5, 5, 5]]), "must have rows of 2 values"),
    "a key twice": (node(users='{"stage1": [], "stage1": [["user-2", 5]], "stage2": []}'), "must have each key once"),
    # its base model
    "a base of no layers": (base(layers=0), "layers must be a whole number"),
    "a base 10**9 wide": (base(hidden_size=10**9), "hidden_size must be a whole number"),
    "more layers than the others": (base(layers=40), "shapes that it has not"),
    "another base": (base(fingerprint="f" * 16), "must run one base model"),
    "a fingerprint that is none": (base(fingerprint="\x1b[0m"), "fingerprint must be 16 hex digits"),
    "a base of two lines": (base(name="a\nb"), "name must be a plain text"),
    "a dtype that is none": (base(dtype="int3"), "dtype must be one of"),
    "a Linear of 10**12 outputs": (node(linears=json.dumps([["q", 10**12, 32]])), "outputs of"),
}

# Later replies


def of_arms(**changes: Any) -> Lie:
    """Other sums of the evaluation, `base__nll` for base/nll; None takes one away."""

    def lie(content: RecordDict, _: Message) -> RecordDict:
        new = {key.replace("__", "/"): value for key, value in changes.items()}
        values = {**content.metric_records["0/metrics"], **new}
        return RecordDict({"0/metrics": MetricRecord({k: v for k, v in values.items() if v is not None})})

    return lie


def fingerprint(value: Any) -> Lie:
    return replaced(RecordDict({"0/node": ConfigRecord({"collective": value})}))


ADOPT, PERSONALIZE, EVALUATE = LATE
LATER: dict[str, tuple[str, Lie, str]] = {
    "another edit": (ADOPT, fingerprint("f" * 16), "must be the one that was handed out"),
    "a fingerprint that colours": (ADOPT, fingerprint("\x1b[31m" + "f" * 11), "must be 16 hex digits"),
    "a fingerprint that is a number": (ADOPT, fingerprint(7), "must be 16 hex digits"),
    "no fingerprint": (ADOPT, replaced(RecordDict({"0/node": ConfigRecord({})})), "node must have collective"),
    "a node that is metrics": (
        ADOPT,
        replaced(RecordDict({"0/node": MetricRecord({"collective": 1})})),
        "ConfigRecord",
    ),
    "nothing (hand-out)": (ADOPT, replaced(RecordDict()), "must have node"),
    "an error of many lines": (
        ADOPT,
        lambda _, m: Message(Error(7, "x\nerror: all is lost\n\x1b[8m"), reply_to=m),
        "x error: all is lost",
    ),
    "no metrics (stage 2)": (PERSONALIZE, replaced(RecordDict()), "must have metrics"),
    "a private edit": (
        PERSONALIZE,
        records(**{"0__arrays": ArrayRecord({"edit": Array(np.zeros(3))})}),
        "must have no other field",
    ),
    "10**12 rows": (PERSONALIZE, numbers(num_examples=10**12), "num-examples must be a whole number"),
    "NaN rows": (PERSONALIZE, numbers(num_examples=math.nan), "num-examples must be a whole number"),
    "negative steps": (PERSONALIZE, numbers(steps=-1), "steps must be a whole number"),
    "10**9 steps": (PERSONALIZE, numbers(steps=10**9), "steps must be a whole number"),
    "a loss of NaN": (PERSONALIZE, numbers(epoch_1=math.nan), "epoch-1 must be a finite number"),
    "a loss that is a list": (PERSONALIZE, numbers(epoch_1=[1.0]), "epoch-1 must be a number"),
    "an epoch that was not asked for": (PERSONALIZE, numbers(epoch_9=1.0), "metrics must have no other field"),
    "a field that is no epoch": (PERSONALIZE, numbers(epoch_x=1.0), "metrics must have no other field"),
    "no content (stage 2)": (PERSONALIZE, no_content, "must have content"),
    "no metrics (evaluation)": (EVALUATE, replaced(RecordDict()), "must have metrics"),
    "an infinite sum": (EVALUATE, of_arms(base__nll=math.inf), "base/nll must be a finite number"),
    "a negative sum": (EVALUATE, of_arms(base__tokens=-1.0), "base/tokens must be a finite number"),
    "10**12 queries": (EVALUATE, of_arms(base__count=1e12), "base/count must be a finite number"),
    "a score above its count": (EVALUATE, of_arms(base__rougeL=1e9), "base/rougeL must be a finite number"),
    "a sum left out": (EVALUATE, of_arms(base__nll=None), "base/nll must be there"),
    "an arm that is none": (EVALUATE, of_arms(all__nll=1.0), "metrics must have no other field"),
    "golds that differ from arm to arm": (EVALUATE, of_arms(stage1__tokens=9.0), "tokens must be the same in all arms"),
    "a list of sums": (EVALUATE, of_arms(base__nll=[1.0]), "base/nll must be a number"),
}
