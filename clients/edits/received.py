"""The collective edit that a message brings each of its users: whole, or as the change of a broadcast they have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from flwr.app import Array, Message, RecordDict

from clients.messages import put_failure, users_of
from fed.communication import npy, wire
from fed.communication.on_device import NotHeld, OnDevice
from fed.methods.method import Method, Tensors


def collective_of(message: Message, method: Method, narrow: OnDevice | None = None, place: int = 0) -> Tensors:
    """The collective tensors that the message carries for the user at `place`, its own or those for all.

    Args:
        message: the server's.
        method: says what shapes they have.
        narrow: where changes travel, what users keep of them.
        place: the user's.
    Raises:
        NotHeld: it carries the change of a broadcast that the user does not have.
        ValueError: it carries no edit.
    """
    return _edit_under(_key_of(message, place), message, users_of(message)[place], method, narrow)


def collectives_of(
    message: Message,
    places: Iterable[int],
    method: Method,
    narrow: OnDevice | None,
    *,
    content: RecordDict,
    device: bool,
) -> dict[int, Tensors]:
    """The same of the users at these places; one who lacks what a change is from has an error in `content` instead.

    A whole edit for all is the same tensors for all.
    """
    whole: dict[str, Tensors] = {}
    edits: dict[int, Tensors] = {}
    for place in places:
        key = _key_of(message, place)
        if key in whole:
            edits[place] = whole[key]
            continue
        try:
            edits[place] = collective_of(message, method, narrow, place)
        except NotHeld as error:
            put_failure(content, place, error, device=device)
            continue
        if "edit" in message.content.array_records[key]:
            whole[key] = edits[place]
    return edits


def tensors_in(message: Message, method: Method, narrow: OnDevice | None = None) -> Iterator[Tensors]:
    """Every edit that the message carries, for all or for one user. Raises as `collective_of`."""
    users = users_of(message) if "host" in message.content.config_records else [""]
    for key in message.content.array_records:
        place, _, name = key.rpartition("/")
        if name != "arrays" or place not in ("", *map(str, range(len(users)))):
            raise ValueError("a message's arrays must be edits")
        yield _edit_under(key, message, users[int(place or 0)], method, narrow)


def _key_of(message: Message, place: int) -> str:
    own = f"{place}/arrays"
    return own if own in message.content.array_records else "arrays"


def _edit_under(key: str, message: Message, user: str, method: Method, narrow: OnDevice | None) -> Tensors:
    record = message.content.array_records[key]
    if set(record) == {"edit"}:
        return _whole(record["edit"], method)
    if set(record) != {"change"} or narrow is None:
        raise ValueError("a message's arrays must be edits")
    array, names = record["change"], message.content.config_records.get(f"{key.removesuffix('arrays')}change")
    if names is None or set(names) != {"from", "to"}:
        raise ValueError("a change must say from which broadcast to which it leads")
    length, most = math.prod(array.shape), narrow.packing.most_bytes
    if not 0 < length <= most:
        raise ValueError(f"a change must have at most {most} bytes, got {length}")
    packed = npy.numbers(array.data, (length,), "uint8")
    return narrow.received(user, packed, before=str(names["from"]), name=str(names["to"]))


def _whole(array: Array, method: Method) -> Tensors:
    """An edit off the network. Raises ValueError for any other array, and makes no room for what it says of itself."""
    shapes, dtype = method.collective_shapes(), wire.whole_dtype(method.settings.wire_dtype)
    count = sum(math.prod(shape) for shape in shapes.values())
    return wire.unpack(npy.numbers(array.data, (count,), dtype), shapes, dtype)
