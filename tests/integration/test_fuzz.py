"""Any message whatever, over the real handlers of both sides: no crash, no silent change, one plain line a refusal.

By day a few dozen examples a side, by night ten thousand. The server's side is its whole run over canned devices
(`tests.server_strategy.screening.canned`), the clients' the real ClientApp of a device on the tiny base.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clients.app import app as client_app
from fed import methods
from fed.base import facts
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.plain_text import is_plain
from fed.privacy.vault import Vault
from server_strategy.grid.edits.broadcasts import Broadcasts
from server_strategy.grid.edits.translation import Translation
from server_strategy.report import page, report
from server_strategy.screening.sizes import sizes
from tests.server_strategy.screening.canned import DEVICES, FOUR, LATE, SKELETON, USERS, serve, trained
from tests.server_strategy.screening.test_malformed import edit_of

TYPES = ("query.hello", "train", *LATE)
TO_DEVICES = (*TYPES, "query.refused")
FIXTURES_STAY = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


def examples(by_day: int, by_night: int) -> Any:
    """Both sizes of a fuzz; the same examples in every run."""
    by = {"day": by_day, "night": by_night}
    marks = {"day": (), "night": (pytest.mark.nightly,)}
    return pytest.mark.parametrize("count", [pytest.param(n, id=name, marks=marks[name]) for name, n in by.items()])


WIRES = [("float32", "plain"), ("int8", "plain"), ("int4", "deflate")]

# What a message may hold

TEXTS = st.text(max_size=20) | st.sampled_from(
    ["", "\x1b[31m", "a\nerror: b", "[" * 2000, "{}", "NaN", "null", "1e999", "[[]]"]
)
INTEGERS = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, -1, 5, 10**12])
FLOATS = st.floats() | st.sampled_from([0.0, -1.0, math.nan, math.inf, 1e308])
METRIC = INTEGERS | FLOATS | st.lists(INTEGERS, max_size=3) | st.lists(FLOATS, max_size=3)
CONFIG = METRIC | TEXTS | st.booleans() | st.binary(max_size=20) | st.lists(TEXTS, max_size=3)
FIELDS = st.sampled_from(
    ["num-examples", "train-loss", "steps", "epoch-1", "epoch-2", "base/nll", "swapped/tokens", "collective", "reason",
     "part", "parts", "users", "base", "linears", "0/num-examples", "0", "server-round", "proximal-mu", "from", "to"]
) | TEXTS  # fmt: skip
KEYS = st.sampled_from(
    ["0/arrays", "0/metrics", "0/node", "0/error", "1/metrics", "-1/x", "users/places", "users/arrays/0",
     "users/metrics", "users/", "timing", "node", "arrays", "config", "host", "metrics", "00/metrics", "²/x", "change",
     "0/change"]
) | TEXTS  # fmt: skip
DTYPES = st.sampled_from(["float32", "float64", "float16", "int32", "uint16", "bool", "complex64", "U2", ">f4"])
NUMPY = st.builds(
    lambda dtype, shape, fill: Array(np.full(shape, fill).astype(dtype)),
    DTYPES, st.lists(st.integers(0, 4), max_size=3).map(tuple), st.sampled_from([0, 1, 7]),
)  # fmt: skip
ARRAYS = NUMPY | st.builds(
    Array,
    DTYPES | TEXTS,
    st.lists(INTEGERS, max_size=3).map(tuple),
    st.sampled_from(["numpy.ndarray", "pickle", ""]),
    st.binary(max_size=200) | st.binary(max_size=60).map(lambda tail: b"\x93NUMPY\x01\x00" + tail),
)
RECORDS = (
    st.dictionaries(FIELDS, METRIC, max_size=4).map(MetricRecord)
    | st.dictionaries(FIELDS, CONFIG, max_size=4).map(ConfigRecord)
    | st.dictionaries(st.sampled_from(["edit", "change", "x"]), ARRAYS, max_size=2).map(ArrayRecord)
)


@st.composite
def changed_edits(draw: Any, array: Array) -> Array:
    """An edit with other numbers, dtype, shape or bytes."""
    try:
        edit = array.numpy().copy()
    except Exception:  # changed once before, into what numpy does not read
        return draw(ARRAYS)
    if edit.dtype.kind not in "fu" or edit.ndim != 1 or not edit.size:
        return draw(ARRAYS)
    if edit.dtype == np.uint8 and draw(st.booleans()):  # a change as it travels
        for place in draw(st.lists(st.integers(0, edit.size - 1), min_size=1, max_size=8)):
            edit[place] = draw(st.integers(0, 255))
        return Array(edit)
    how = draw(st.sampled_from(["numbers", "scale", "dtype", "shape", "words", "bytes"]))
    if how == "numbers":
        edit = edit.astype(np.float32) if edit.dtype.kind == "u" else edit
        for place in draw(st.lists(st.integers(0, edit.size - 1), min_size=1, max_size=4)):
            edit[place] = draw(st.floats(width=32))
    elif how == "scale":
        with np.errstate(over="ignore", invalid="ignore"):
            edit = (edit * np.float32(draw(st.floats(width=32)))).astype(edit.dtype)
    elif how == "dtype":
        with np.errstate(all="ignore"):
            edit = edit.astype(draw(DTYPES))
    elif how == "shape":
        edit = edit[: draw(st.integers(0, edit.size))]
    elif how == "words":
        return Array(draw(DTYPES), draw(st.lists(INTEGERS, max_size=2).map(tuple)), array.stype, array.data)
    else:
        data = bytearray(array.data)
        for place in draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=6)):
            data[place] = draw(st.integers(0, 255))
        return Array(array.dtype, array.shape, array.stype, bytes(data))
    return Array(edit)


@st.composite
def changed(draw: Any, content: RecordDict) -> RecordDict:
    """An honest message's content with one to three things in it changed."""
    new: dict[str, Any] = dict(content)
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(sorted(new))) if new and draw(st.booleans()) else draw(KEYS)
        record = new.get(key)
        how = draw(st.sampled_from(["field", "field", "array", "drop", "record", "move"]))
        if how == "drop":
            new.pop(key, None)
        elif how == "move" and record is not None:
            new[draw(KEYS)] = new.pop(key)
        elif how == "array" and isinstance(record, ArrayRecord) and len(record) == 1:
            ((name, array),) = record.items()
            new[key] = ArrayRecord({name: draw(changed_edits(array))})
        elif how == "field" and isinstance(record, MetricRecord | ConfigRecord):
            field = draw(st.sampled_from(sorted(record))) if record and draw(st.booleans()) else draw(FIELDS)
            values = METRIC if isinstance(record, MetricRecord) else CONFIG | JSON_OF.get(field, TEXTS)
            new[key] = type(record)({**record, field: draw(values)})  # type: ignore[dict-item]
        else:
            new[key] = draw(RECORDS)
    return RecordDict(new)


SMALL = st.none() | st.booleans() | INTEGERS | st.floats() | TEXTS
ROWS = st.lists(st.lists(st.sampled_from([*USERS, "ann"]) | SMALL, max_size=4), max_size=3)
JSON_OF = {
    "users": st.fixed_dictionaries({"stage1": ROWS | SMALL, "stage2": ROWS | SMALL}).map(json.dumps),
    "base": st.dictionaries(st.sampled_from(["name", "layers", "hidden_size", "parameters"]), SMALL).map(json.dumps),
    "linears": ROWS.map(json.dumps),
}


# The server's side


@pytest.mark.parametrize("wire", WIRES, ids="-".join)
@examples(12, 2000)
def test_whatever_one_device_sends_the_servers_run_ends_with_its_report(
    settings_in, tmp_path, monkeypatch, count, wire
):
    monkeypatch.setattr(page, "write_page", lambda content, path: None)  # twenty times as long as all the rest
    monkeypatch.setattr(report, "git_commit", lambda: "unknown")
    run = settings_in(tmp_path, **FOUR, fraction=1.0, max_items=0, wire_dtype=wire[0], wire_coding=wire[1])
    honest = serve(run)
    assert honest["errors"] == []
    # How far the honest users' maps moved, and the mean that they have.
    method = methods.make(run, SKELETON)
    initial, translation = method.initial_collective(), Translation.of(method.collective_shapes(), run)
    flat = translation.to_record(initial)["edit"].numpy()
    users = [translation.from_record(ArrayRecord({"edit": Array(trained(flat, place))})) for place in range(DEVICES)]
    furthest = max(sizes(user, initial)["map"] for user in users)
    mean = edit_of(run)

    @settings(max_examples=count, derandomize=True, database=None, suppress_health_check=FIXTURES_STAY)
    @given(kind=st.sampled_from(TYPES), data=st.data())
    def fuzz(kind: str, data: st.DataObject) -> None:
        written = serve(run, {kind: lambda content, _: data.draw(changed(content))})
        assert written["stopped"] is None and set(written["arms"]) == set(honest["arms"])
        others = [user for user in USERS if user != "user-2"]
        assert {user["user_id"] for user in written["users"]} >= set(others)
        for error in written["errors"]:
            assert error["user"] in (None, "user-2") and is_plain(error["reason"]), error
        json.dumps(written, allow_nan=False)  # no score of the others became none
        # The mean stays within the bound, and where nobody said anything of an edit it stays as it is.
        assert sizes(edit_of(run), initial)["map"] <= run.norm_bound * furthest
        if kind in LATE:
            assert all(bool((tensor == mean[name]).all()) for name, tensor in edit_of(run).items())

    fuzz()


# The clients' side


@pytest.fixture(params=WIRES, ids="-".join)
def device(request, settings_in, tmp_path, open_policy):
    """(a device's context, its user, the run's settings), on every wire."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1
    run = settings_in(
        tmp_path / "runs", data="synthetic:2", cohorts="all", min_nodes=1, max_new_tokens=0, max_queries=1, max_items=2,
        stage2_epochs=1, local_epochs=1, wire_dtype=request.param[0], wire_coding=request.param[1],
    )  # fmt: skip
    corpus = open_corpus(run.data, get_task(run.task), seed=run.seed)
    user = corpus.user(sorted({*corpus.cohorts["others"], *corpus.cohorts["test"]})[0])
    history = tmp_path / "history.json"
    queries = [{"id": q.id, "input": q.input, "gold": q.gold} for q in user.queries]
    history.write_text(json.dumps([{"user_id": user.user_id, "profile": list(user.profile), "query": queries}]))
    config = {"user-id": user.user_id, "history": str(history), "vault": str(tmp_path / "vault"), "policy": open_policy}
    context = Context(run_id=7, node_id=5, node_config=config, state=RecordDict(), run_config=run.as_config())  # type: ignore[arg-type]
    return context, user, run


def asked(kind: str, content: RecordDict) -> Message:
    return Message(content, dst_node_id=5, message_type=kind)


@examples(12, 1700)
def test_whatever_the_server_sends_a_device_answers_in_content_or_one_plain_line(device, tmp_path, capsys, count):
    context, user, run = device
    known = facts.facts(run.base_source, device=run.device, dtype=run.dtype)
    method = methods.make(run, known.skeleton)
    translation = Translation.of(method.collective_shapes(), run)
    broadcasts, arrays = Broadcasts(translation, 0), translation.to_record(method.initial_collective())
    host = ConfigRecord({"users": json.dumps([user.user_id])})
    collective = {"arrays": arrays}
    if translation.packing:  # a broadcast that the device has, and the change from it
        collective = {"arrays": broadcasts.next(1, arrays)}
        first = RecordDict({**collective, "config": ConfigRecord({"server-round": 1}), "host": host})
        assert not client_app(asked("train", first), context).has_error()
        broadcasts.took(user.user_id)
        edit = translation.from_record(arrays)
        broadcasts.next(2, translation.to_record({**edit, "b": edit["b"] + 0.01}))
        collective = dict(broadcasts.change_for(user.user_id))
    honest = {
        "query.hello": RecordDict(),
        "query.refused": RecordDict({"refusal": ConfigRecord({"reason": "x\x1b[31m\nerror: y"})}),
        "train": RecordDict({**collective, "config": ConfigRecord({"server-round": 2}), "host": host}),
        "query.adopt": RecordDict({**collective, "host": host}),
        "train.personalize": RecordDict({"config": ConfigRecord({"collective": "f" * 16}), "host": host}),
        "evaluate": RecordDict({"config": ConfigRecord({"collective": "f" * 16}), "host": host}),
    }
    assert not client_app(asked("query.adopt", honest["query.adopt"]), context).has_error()
    private = [item["text"] for item in user.profile] + [query.gold for query in user.queries]

    @settings(max_examples=count, derandomize=True, database=None, suppress_health_check=FIXTURES_STAY)
    @given(kind=st.sampled_from(TO_DEVICES), data=st.data())
    def fuzz(kind: str, data: st.DataObject) -> None:
        reply = client_app(asked(kind, data.draw(changed(honest[kind]))), context)
        if reply.has_error():
            assert reply.error.reason and is_plain(reply.error.reason) and len(reply.error.reason) <= 500
            said = reply.error.reason
        else:
            said = repr(reply.content)
            assert all("stage2" not in key and "private" not in key for key in reply.content)
        assert not any(text in said for text in private) and str(tmp_path) not in said
        assert Vault(Path(context.node_config["vault"])).users() in ([], [user.user_id])
        # The device's own log cannot be broken or coloured either.
        logged = capsys.readouterr()
        assert all(is_plain(line) for line in (logged.out + logged.err).split("\n"))

    fuzz()


def test_an_error_of_flowers_own_is_a_users_error_too(settings_in, tmp_path):
    run = settings_in(tmp_path, **FOUR, fraction=1.0, max_items=0)
    written = serve(run, {"train": lambda _, message: Message(Error(3, "\x1b[2J\nerror: x"), reply_to=message)})
    (error,) = written["errors"]
    assert error["reason"] == "\\u{1b}[2J error: x"
