"""What a user federates, in its reply: a whole edit, or the change from the one that it was sent."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, RecordDict

from fed.communication import wire
from fed.communication.on_device import OnDevice
from fed.methods.method import Method, Tensors, Trained


def put_tensors(content: RecordDict, place: int, tensors: Tensors, method: Method) -> None:
    """The tensors of the user at `place`, whole."""
    ordered = {name: tensors[name] for name in method.collective_shapes()}
    packed = wire.pack(ordered, method.settings.wire_dtype)
    content[f"{place}/arrays"] = ArrayRecord({"edit": Array(packed)})


def put_trained(
    content: RecordDict,
    place: int,
    trained: Trained,
    method: Method,
    *,
    start: Tensors,
    round_number: int,
    narrow: OnDevice | None,
) -> None:
    """What the user at `place` trained, as the run's wire has it.

    Args:
        content: of the reply.
        place: the user's.
        trained: its tensors after the round.
        method: whose.
        start: what the user was sent.
        round_number: from 1 on.
        narrow: where changes travel, what the user keeps of them.
    Raises:
        NotFinite: the change is not finite. OSError, VaultError: what the user keeps of it cannot be kept.
    """
    if narrow is None:
        put_tensors(content, place, trained.tensors, method)
        return
    packed = narrow.sent(trained.user_id, start, trained.tensors, round_number)
    content[f"{place}/arrays"] = ArrayRecord({"edit": Array(packed)})
