"""Replies that Flower's own reader cannot read, or reads to somebody's harm, by what is wrong with their bytes.

Each is a function that pushes one reply to a message, and the words that the error must name it by.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from flwr.app import Error, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from tests.server_strategy.grid.wrapped.superlink import Objects, SuperLink, made, name

Push = Callable[[SuperLink, Message, RecordDict], None]
READ = "must be made as Flower makes messages"
EMPTY = made("RecordDict", [], b"{}")
BAD = b"\xff\xfe\x00{["


def flat(objects: Objects, root: str) -> ObjectTree:
    """The objects as one message's, all of them its children."""
    return ObjectTree(object_id=root, children=[ObjectTree(object_id=key) for key in objects if key != root])


def pushed(objects: Sequence[bytes], *, tree: Callable[[Objects, str], ObjectTree] = flat, upload: bool = True) -> Push:
    """These objects, the last of which stands for the message."""

    def push(link: SuperLink, request: Message, _: RecordDict) -> None:
        by_id = {name(content): content for content in objects}
        reply = Message(RecordDict(), reply_to=request)
        link.push(reply, by_id, tree(by_id, name(objects[-1])), upload=upload)

    return push


def head(request: Message, children: Sequence[str], body: bytes | None = None) -> bytes:
    """The object of a message that answers the request, with these children."""
    if body is None:
        _, _, body = Message(RecordDict(), reply_to=request).deflate().partition(b"\x00")
    return made("Message", list(children), body)


def holding(*objects: bytes, top: int = 1, tree: Callable[[Objects, str], ObjectTree] = flat) -> Push:
    """A whole message around the last `top` of these objects."""

    def push(link: SuperLink, request: Message, honest: RecordDict) -> None:
        message = head(request, [name(content) for content in objects[len(objects) - top :]])
        pushed([*objects, message], tree=tree)(link, request, honest)

    return push


def record(kind: str, children: Sequence[bytes], body: object, key: str = "0/metrics") -> list[bytes]:
    """A RecordDict with one record of this kind, parts and body, as its objects."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    inner = made(kind, [name(child) for child in children], raw)
    outer = made("RecordDict", [name(inner)], json.dumps({key: name(inner)}).encode())
    return [*children, inner, outer]


def array(body: object, chunks: Sequence[bytes]) -> list[bytes]:
    """A RecordDict with the record of an Array of this body."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    inner = made("Array", [name(chunk) for chunk in chunks], raw)
    return [*chunks, *record("ArrayRecord", [inner], {"edit": name(inner)}, "0/arrays")]


def honest_array(**changes: Any) -> dict[str, Any]:
    return {"dtype": "float32", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0]} | changes


def changed(change: Callable[[Message], None]) -> Push:
    """The honest reply, with a head that says something else inside than the SuperLink was told."""

    def push(link: SuperLink, request: Message, honest: RecordDict) -> None:
        reply = Message(honest, reply_to=request)
        lying = Message(honest, reply_to=request)
        change(lying)
        objects = {key: item.deflate() for key, item in get_all_nested_objects(lying).items()}
        link.push(reply, objects, flat(objects, list(objects)[-1]))

    return push


def meta(**fields: Any) -> Callable[[Message], None]:
    def change(message: Message) -> None:
        message.metadata.__dict__.update({f"_{key}": value for key, value in fields.items()})

    return change


def failed(error: Error) -> Push:
    return lambda link, request, _: link.reply(request, Message(error, reply_to=request))


def unknown(link: SuperLink, request: Message, _: RecordDict) -> None:
    """A reply whose parts are another message's."""
    link.push(Message(RecordDict(), reply_to=request), {name(EMPTY): EMPTY}, ObjectTree(object_id=name(EMPTY)),
              message_id=name(b"another"))  # fmt: skip


def doubled(depth: int) -> Push:
    """A message of one part, which has two parts, which are one; and that has two parts, which are one …"""
    tree, objects = ObjectTree(object_id=name(EMPTY)), {name(EMPTY): EMPTY}
    for level in range(depth):
        content = made("Message", [tree.object_id], b"%d" % level)
        objects[name(content)] = content
        again = ObjectTree(object_id=tree.object_id)
        tree = ObjectTree(object_id=name(content), children=[tree, again])
    return lambda link, request, _: link.push(Message(RecordDict(), reply_to=request), objects, tree)


def chain(length: int) -> list[bytes]:
    """Messages in messages, one in the other."""
    objects = [EMPTY]
    for _ in range(length):
        objects.append(made("Message", [name(objects[-1])], b""))
    return objects


def anew(make: Callable[[Message], bytes], *parts: bytes) -> Push:
    """These parts, and a message that is made from the request."""
    return lambda link, request, honest: pushed([*parts, make(request)])(link, request, honest)


CHUNK = made("ArrayChunk", [], bytes(100_000))
CONFIG = made("ConfigRecord", [], b"")
METRIC = made("MetricRecord", [], b"")
ARRAY = array(honest_array(), [CHUNK])[1]

UNREADABLE: dict[str, tuple[Push, str]] = {
    # The message itself
    "a body that is no protobuf": (anew(lambda request: head(request, [name(EMPTY)], BAD), EMPTY), READ),
    "neither content nor error": (anew(lambda request: head(request, [])), READ),
    "a record in place of the message": (pushed([CONFIG]), "must be a Message, got 'ConfigRecord'"),
    "a RecordDict in place of the message": (pushed([EMPTY]), "must be a Message, got 'RecordDict'"),
    "an array's part in place of the message": (pushed([CHUNK]), "must be a Message, got 'ArrayChunk'"),
    "a record as content": (holding(CONFIG), READ),
    "an array as content": (holding(CHUNK, ARRAY), READ),
    "a message as content": (holding(*chain(1)), READ),
    "messages in messages": (holding(*chain(2000)), READ),
    # What it is made of
    "a content that is not among the parts": (anew(lambda request: head(request, [name(CONFIG)])), READ),
    "parts that are too many": (holding(*(made("ArrayChunk", [], b"%d" % n) for n in range(9000))), "at most 8192 obj"),
    "parts of parts, twice each": (doubled(14), "at most 8192 obj"),
    "another message's parts": (unknown, "message"),
    # RecordDicts
    "a RecordDict that is no JSON": (holding(made("RecordDict", [], BAD)), READ),
    "a RecordDict that is a list": (holding(made("RecordDict", [], b"[]")), READ),
    "a RecordDict of brackets": (holding(made("RecordDict", [], b"[" * 100_000)), READ),
    "a RecordDict that names other parts": (holding(made("RecordDict", [], b'{"0/x": "y"}')), READ),
    "a RecordDict that names one part of two": (
        holding(
            CONFIG, METRIC, made("RecordDict", [name(CONFIG), name(METRIC)], json.dumps({"a": name(CONFIG)}).encode())
        ),
        READ,
    ),
    "a RecordDict of RecordDicts": (holding(*record("RecordDict", [], {})), READ),
    "a RecordDict of parts of arrays": (holding(*record("ArrayChunk", [], b"")), READ),
    # Records
    "a ConfigRecord that is no protobuf": (holding(*record("ConfigRecord", [], BAD)), READ),
    "a ConfigRecord with a part": (holding(*record("ConfigRecord", [EMPTY], b"")), READ),
    "a MetricRecord that is no protobuf": (holding(*record("MetricRecord", [], BAD)), READ),
    "a MetricRecord with a part": (holding(*record("MetricRecord", [EMPTY], b"")), READ),
    "an ArrayRecord that is no JSON": (holding(*record("ArrayRecord", [], BAD, "0/arrays")), READ),
    "an ArrayRecord that names other parts": (holding(*record("ArrayRecord", [], {"edit": "x"}, "0/arrays")), READ),
    "an ArrayRecord of records": (holding(*record("ArrayRecord", [CONFIG], {"edit": name(CONFIG)}, "0/arrays")), READ),
    # Arrays
    "an Array that is no JSON": (holding(*array(BAD, [CHUNK])), READ),
    "an Array of nothing": (holding(*array({}, [CHUNK])), READ),
    "an Array whose dtype is a number": (holding(*array(honest_array(dtype=5), [CHUNK])), READ),
    "an Array without a shape": (holding(*array(honest_array(shape=None), [CHUNK])), READ),
    "an Array whose shape is of texts": (holding(*array(honest_array(shape="ab"), [CHUNK])), READ),
    "an Array of past its parts": (holding(*array(honest_array(arraychunk_ids=[1]), [CHUNK])), READ),
    "an Array of parts by name": (holding(*array(honest_array(arraychunk_ids=["0"]), [CHUNK])), READ),
    "an Array whose part is a record": (holding(*array(honest_array(), [CONFIG])), READ),
    "an Array of one part a million times": (
        holding(*array(honest_array(arraychunk_ids=[0] * 1_000_000), [CHUNK])),
        "must have at most",
    ),
    "a part with parts": (holding(*array(honest_array(), [made("ArrayChunk", [name(EMPTY)], b"x")])), READ),
    # Sizes
    "six megabytes beside the edit": (holding(made("ArrayChunk", [], bytes(6_000_000)), EMPTY), "must have at most"),
    # Errors
    "an error of six megabytes": (failed(Error(7, "x" * 6_000_000)), "must have at most"),
    "an error without a reason": (failed(Error(-1)), "no reason was given"),
}
# What a head says of itself inside is not believed: such replies are as good as honest ones.
HARMLESS: dict[str, Push] = {
    "an answer to another request": changed(meta(reply_to_message_id=name(b"another"))),
    "an answer to none": changed(meta(reply_to_message_id="")),
    "another node": changed(meta(src_node_id=5)),
    "another run, type and time": changed(meta(run_id=5, message_type="query.hello", created_at=0.0, ttl=-1.0)),
}
# Replies that Flower reads, and that no step after it may take as they are.
READABLE: dict[str, tuple[Push, str]] = {
    "a RecordDict whose key is half a character": (holding(*record("ConfigRecord", [], b"", "\ud800")), "user's place"),
    "one record under ten thousand keys": (
        holding(
            CONFIG,
            made(
                "RecordDict", [name(CONFIG)], json.dumps(dict.fromkeys(map(str, range(10_000)), name(CONFIG))).encode()
            ),
        ),
        "user's place",
    ),
    "an error that breaks a line": (
        failed(Error(7, "gone\n\x1b[31merror: the server")),
        "gone \\u{1b}[31merror: the server",
    ),
}
