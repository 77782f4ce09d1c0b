"""What the server broadcasts on a narrow wire, and to whom it goes as a change."""

from __future__ import annotations

import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from fed.communication import changes
from fed.communication.quantization import NARROW
from fed.edits.stiefel import orthogonality_error, qr_retraction, random_rows
from fed.privacy.tensor_files import fingerprint
from fed.randomness import generator
from server_strategy.grid.edits.broadcasts import OFF_THE_MANIFOLD, Broadcasts
from server_strategy.grid.edits.translation import Translation
from server_strategy.screening.breach import Breach

SHAPES = {"R": (2, 3, 64), "W": (2, 3, 64), "b": (2, 3)}


def edit(seed: int, step: float = 0.01) -> dict[str, torch.Tensor]:
    """One of a chain of edits that are `step` apart."""
    R = random_rows(SHAPES["R"], torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(seed)
    R = qr_retraction(R + step * torch.randn(SHAPES["R"], generator=draw))
    D = step * torch.randn(SHAPES["W"], generator=draw)
    return {"R": R, "W": R + D, "b": step * torch.randn(SHAPES["b"], generator=draw)}


def made(dtype: str = "int8", **options: bool) -> tuple[Translation, Broadcasts]:
    translation = Translation(SHAPES, dtype, **options)
    return translation, Broadcasts(translation, seed=0)


@pytest.mark.parametrize("dtype", NARROW)
def test_the_first_is_whole_and_the_next_is_the_change_of_it_that_both_sides_reckon_alike(dtype):
    translation, broadcasts = made(dtype)
    first = broadcasts.next(1, translation.to_record(edit(1)))
    assert all(torch.equal(translation.from_record(first)[name], tensor) for name, tensor in edit(1).items())
    assert broadcasts.change_for("ann") is None
    broadcasts.took("ann")
    wanted = edit(2)
    second = translation.from_record(broadcasts.next(2, translation.to_record(wanted)))
    change = broadcasts.change_for("ann")
    assert change is not None and broadcasts.change_for("bob") is None
    # As ann reckons it, from what she had and from the bytes.
    packed = change.array_records["arrays"]["change"].numpy()
    hers = changes.applied(edit(1), translation.packing.unpack(packed))
    assert fingerprint(hers) == fingerprint(second) == change.config_records["change"]["to"]
    assert change.config_records["change"]["from"] == fingerprint(edit(1))
    # Rounded, and near.
    assert not torch.equal(second["W"], wanted["W"])
    assert float((second["W"] - wanted["W"]).norm()) < 0.2 * float((edit(1)["W"] - wanted["W"]).norm())


def test_what_a_broadcast_leaves_out_is_made_up_for_by_those_that_follow():
    translation, broadcasts = made("int4")
    broadcasts.next(1, translation.to_record(edit(1, step=0.002)))
    wanted, arrays, off = edit(2, step=0.002), translation.to_record(edit(2, step=0.002)), []
    for number in range(2, 8):
        arrays = broadcasts.next(number, arrays)  # and a round in which nobody changes anything
        off.append(float(changes.between(wanted, translation.from_record(arrays))["D"].norm()))
    assert off[0] > 0 and off[-1] < 0.01 * off[0]


def test_who_has_missed_one_or_lost_it_needs_the_whole_and_who_has_this_one_already_too():
    translation, broadcasts = made()
    for number in (1, 2):
        broadcasts.next(number, translation.to_record(edit(number)))
        broadcasts.took("ann")
        if number == 1:
            broadcasts.took("bob")
    assert broadcasts.change_for("ann") is None  # the round is repeated: she has it, and no change leads to it from it
    broadcasts.next(3, translation.to_record(edit(3)))
    assert broadcasts.change_for("ann") is not None and broadcasts.change_for("bob") is None
    broadcasts.lost("ann")
    assert broadcasts.change_for("ann") is None


def test_an_edit_that_rounding_would_take_off_the_manifold_is_broadcast_whole():
    translation, broadcasts = made("int4")
    broadcasts.next(1, translation.to_record(edit(1, step=1.0)))
    broadcasts.took("ann")
    far = edit(2, step=1.0)  # another R altogether, in fifteen steps
    sent = translation.from_record(broadcasts.next(2, translation.to_record(far)))
    assert all(torch.equal(sent[name], tensor) for name, tensor in far.items())
    assert broadcasts.change_for("ann") is None
    near = edit(2, step=1.0)
    near["b"] = near["b"] + 0.01
    broadcasts.took("ann")
    sent = translation.from_record(broadcasts.next(3, translation.to_record(near)))
    assert broadcasts.change_for("ann") is not None
    assert orthogonality_error(sent["R"]) <= orthogonality_error(near["R"]) + OFF_THE_MANIFOLD


@pytest.mark.parametrize(("dtype", "deflated"), [("int8", False), ("int4", True), ("bfloat16", True)])
def test_a_reply_is_the_edit_that_its_message_carried_and_the_change(dtype, deflated):
    translation, _ = made(dtype, deflated=deflated)
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 7, 1  # as Flower sets in its processes
    message = Message(RecordDict({"arrays": translation.to_record(edit(1))}), dst_node_id=1, message_type="train")
    sent = changes.sent(edit(1), edit(2), translation.packing, generator(0))
    record = RecordDict({"arrays": _array(sent.packed)})["arrays"]
    mine = translation.from_record(translation.up(record, message))
    theirs = changes.applied(edit(1), sent.change)
    assert all(torch.equal(mine[name], theirs[name]) for name in SHAPES)
    short = sent.packed[: -1 if not deflated else 0]
    with pytest.raises(Breach, match=f"a change in {dtype} must have .* bytes"):
        translation.up(RecordDict({"arrays": _array(short)})["arrays"], message)
    with pytest.raises(Breach, match="the edit must travel as uint8"):
        translation.up(RecordDict({"arrays": _array(sent.packed.astype("float32"))})["arrays"], message)
    with pytest.raises(Breach, match="arrays must have edit"):
        translation.up(RecordDict({"arrays": _array(sent.packed, "change")})["arrays"], message)


def _array(packed, name="edit"):
    return ArrayRecord({name: Array(packed)})
