"""On a narrow wire a liar's change is refused by name as a whole edit is, and the mean is that of the others."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, RecordDict

from fed import methods
from fed.communication import changes
from fed.communication.on_device import NOT_HELD
from fed.communication.quantization import SCALE_BYTES, Packing, rows_of
from fed.randomness import generator
from tests.server_strategy.screening.canned import FOUR, SKELETON, USERS, Lie, serve
from tests.server_strategy.screening.lies import described, edited, header
from tests.server_strategy.screening.test_malformed import LIED, edit_of

Of = Callable[[Packing], Lie]
WIRES = ("int8", "int4", "bfloat16", "float16")


def of_bytes(change: Callable[[np.ndarray], Any]) -> Of:
    """Other bytes in place of the change's."""
    return lambda packing: edited(change)


def filled(place: Callable[[Packing], slice], value: bytes) -> Of:
    """These bytes over and over, at this place."""

    def of(packing: Packing) -> Lie:
        def change(packed: np.ndarray) -> np.ndarray:
            part = place(packing)
            size = len(range(*part.indices(packed.size)))
            packed[part] = np.frombuffer(value * (size // len(value)), np.uint8)
            return packed

        return edited(change)

    return of


def scales(packing: Packing) -> slice:
    return slice(0, SCALE_BYTES * sum(map(rows_of, packing.shapes.values())))


def codes(packing: Packing) -> slice:
    return slice(scales(packing).stop, None)


def everything(_: Packing) -> slice:
    return slice(None)


def times(factor: float) -> Of:
    """So many times the honest change."""

    def of(packing: Packing) -> Lie:
        def change(packed: np.ndarray) -> np.ndarray:
            honest = packing.unpack(packed)
            return packing.pack({name: factor * tensor for name, tensor in honest.items()}, generator("lie"))

        return edited(change)

    return of


def bf16(value: float) -> bytes:
    return torch.tensor([value], dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()


def deflated(body: Callable[[Packing], bytes], mark: bytes = b"\x01") -> Of:
    def of(packing: Packing) -> Lie:
        raw = body(packing)
        machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = machine.compress(raw) + machine.flush()
        return edited(lambda _: np.frombuffer(mark + packed, np.uint8))

    return of


# what is wrong with it -> (the change, the words that name it)
EVERY: dict[str, tuple[Of, str]] = {
    "one byte short": (of_bytes(lambda packed: packed[:-1]), "must have"),
    "one byte more": (of_bytes(lambda packed: np.append(packed, packed[:1])), "must have"),
    "no byte": (of_bytes(lambda packed: packed[:0]), "must have"),
    "two dimensions": (of_bytes(lambda packed: packed.reshape(1, -1)), "must have shape"),
    "signed bytes": (of_bytes(lambda packed: packed.view(np.int8)), "must travel as uint8"),
    "a whole edit": (of_bytes(lambda packed: packed.astype(np.float32)), "must travel as uint8"),
    "a hundred times the change": (times(100.0), "norm-bound"),
}
CODED: dict[str, tuple[Of, str]] = {
    "a scale of NaN": (filled(scales, bf16(math.nan)), "scales of a change must be finite"),
    "an infinite scale": (filled(scales, bf16(math.inf)), "scales of a change must be finite"),
    "a negative scale": (filled(scales, bf16(-1.0)), "scales of a change must be finite and not negative"),
    "scales past what codes can stand": (filled(scales, bf16(3e38)), "must be finite"),
}
OF_WIRE: dict[str, dict[str, tuple[Of, str]]] = {
    "int8": {"a code of -128": (filled(codes, b"\x80"), "codes of a change in int8 must lie in -127..127")},
    "int4": {"a code of 8": (filled(codes, b"\xff"), "codes of a change in int4 must lie in -7..7")},
    "bfloat16": {"NaN": (filled(everything, b"\xff"), "must be finite")},
    "float16": {"infinity": (filled(everything, b"\x7c"), "must be finite")},
}
SAID: dict[str, tuple[Of, str]] = {
    "a shape of 10**12 in Flower's words": (lambda _: edited(described(shape=(10**12,))), "must have"),
    "a shape that is true": (lambda _: edited(described(shape=(True,))), "must have"),
    "a shape of 10**12 in the header": (
        lambda _: edited(described(data=lambda packed: header(packed, shape=(10**12,)))),
        "header of an edit must say",
    ),
    "another key": (lambda _: keyed("change"), "must have edit"),
}
DEFLATED: dict[str, tuple[Of, str]] = {
    "a hundred times as many zeros": (
        deflated(lambda packing: bytes(100 * packing.plain_bytes)),
        "a deflated change must be one of",
    ),
    "more than a change": (
        deflated(lambda packing: bytes(packing.plain_bytes + 1)),
        "a deflated change must be one of",
    ),
    "less than a change": (
        deflated(lambda packing: bytes(packing.plain_bytes - 1)),
        "a deflated change must be one of",
    ),
    "a mark that is none": (deflated(lambda packing: bytes(packing.plain_bytes), b"\x02"), "a deflated change must be"),
    "bytes that do not inflate": (of_bytes(lambda _: np.full(50, 255, np.uint8)), "a deflated change must be one of"),
    "a stream that does not end": (
        of_bytes(lambda _: np.frombuffer(b"\x01\x00", np.uint8)),
        "a deflated change must be",
    ),
    "plain bytes that are too few": (of_bytes(lambda _: np.zeros(9, np.uint8)), "a deflated change must be one of"),
}


def keyed(key: str) -> Lie:
    def lie(content: RecordDict, _: Message) -> RecordDict:
        return RecordDict({**content, "0/arrays": ArrayRecord({key: content.array_records["0/arrays"]["edit"]})})

    return lie


def cases() -> list[Any]:
    tables = [(wire, "plain", EVERY if wire in ("int8", "float16") else {}) for wire in WIRES]
    tables += [(wire, "plain", CODED) for wire in ("int8", "int4")] + [(wire, "plain", OF_WIRE[wire]) for wire in WIRES]
    tables += [("int8", "plain", SAID), ("int4", "deflate", DEFLATED)]
    return [
        pytest.param(wire, coding, of, words, id=f"{wire}, {coding}: {what}")
        for wire, coding, table in tables
        for what, (of, words) in table.items()
    ]


@pytest.fixture(scope="module")
def means(settings_in, tmp_path_factory):
    """means(settings) -> the collective edit of a run whose liar gave up instead of lying."""
    made: dict[tuple[str, str], Any] = {}

    def mean(run):
        key = (run.wire_dtype, run.wire_coding)
        if key not in made:
            folder = tmp_path_factory.mktemp("others")
            same = settings_in(folder, **FOUR, fraction=1.0, max_items=0, wire_dtype=key[0], wire_coding=key[1])
            serve(same, {"train": lambda _, message: Message(Error(7, "gone"), reply_to=message)})
            made[key] = edit_of(same)
        return made[key]

    return mean


@pytest.mark.parametrize("wire", WIRES)
def test_an_honest_run_on_a_narrow_wire_has_no_error_and_its_liar_would_have_counted(four, means, wire):
    run = four(wire_dtype=wire)
    told = serve(run)
    assert told["errors"] == [] and told["stopped"] is None
    assert any(bool((edit_of(run)[name] != tensor).any()) for name, tensor in means(run).items())


@pytest.mark.parametrize(("wire", "coding", "of", "words"), cases())
def test_a_malformed_change_is_that_users_error_and_the_mean_is_that_of_the_others(
    four,
    means,
    wire: str,
    coding: str,
    of: Of,
    words: str,
    capsys,
):
    run = four(wire_dtype=wire, wire_coding=coding)
    shapes = methods.make(run, SKELETON).collective_shapes()
    told = serve(run, {"train": of(changes.packing(shapes, wire, deflated=coding == "deflate"))})
    (error,) = told["errors"]
    assert (error["phase"], error["round"], error["user"]) == ("stage1", 1, LIED) and words in error["reason"], error
    assert told["stopped"] is None and [user["user_id"] for user in told["users"]] == USERS
    assert all(bool((edit_of(run)[name] == tensor).all()) for name, tensor in means(run).items())
    assert not any("\x1b" in line or line.startswith("error:") for line in capsys.readouterr().out.splitlines())


def test_who_always_says_that_it_lost_the_last_broadcast_is_asked_twice_and_no_more(four):
    asked = []

    def forgetful(_, message):
        asked.append(message)
        return RecordDict({"0/error": ConfigRecord({"reason": NOT_HELD})})

    told = serve(four(wire_dtype="int8"), {"train": forgetful})
    assert len(asked) == 2 and {error["user"] for error in told["errors"]} == {LIED} and told["stopped"] is None
