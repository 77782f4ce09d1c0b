"""What a device keeps of a narrow wire: enough to do a round again, and no harm where it is lost."""

from __future__ import annotations

import pytest
import torch

from fed.communication import changes
from fed.communication.on_device import NotHeld, OnDevice
from fed.privacy.tensor_files import fingerprint
from fed.privacy.vault import Vault
from fed.randomness import generator
from fed.resuming.of_run import OfRun

SHAPES = {"D": (1, 3, 40), "b": (1, 3)}


def edit(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}


@pytest.fixture
def narrow(tmp_path) -> OnDevice:
    return OnDevice(OfRun(Vault(tmp_path), "7", "{}", {}), changes.packing(SHAPES, "int4"), 0)


def test_a_round_that_is_done_again_sends_the_same_bytes_and_the_next_makes_up_for_it(narrow):
    first = narrow.sent("ann", edit(0), edit(1), 1)
    second = narrow.sent("ann", edit(1), edit(2), 2)
    assert narrow.sent("ann", edit(1), edit(2), 2).tobytes() == second.tobytes()
    # By hand: the second is the change and what the first left out.
    sent = changes.sent(edit(0), edit(1), narrow.packing, generator(0, "wire", 1, "ann"))
    again = changes.sent(edit(1), edit(2), narrow.packing, generator(0, "wire", 2, "ann"), feedback=sent.feedback)
    assert (first.tobytes(), second.tobytes()) == (sent.packed.tobytes(), again.packed.tobytes())
    # Another user of the vault has a draw and a feedback of its own.
    assert narrow.sent("bob", edit(0), edit(1), 1).tobytes() != first.tobytes()


def test_a_feedback_that_is_lost_damaged_or_of_another_run_is_none(narrow, tmp_path):
    narrow.sent("ann", edit(0), edit(1), 1)
    with_it = narrow.sent("ann", edit(1), edit(2), 2)
    without = changes.sent(edit(1), edit(2), narrow.packing, generator(0, "wire", 2, "ann")).packed
    assert with_it.tobytes() != without.tobytes()
    for file in tmp_path.glob("*/personal.feedback*"):
        file.write_bytes(b"torn")
    assert narrow.sent("ann", edit(1), edit(2), 2).tobytes() == without.tobytes()
    other = OnDevice(OfRun(Vault(tmp_path), "8", "{}", {}), narrow.packing, 0)
    assert other.sent("ann", edit(1), edit(2), 2).tobytes() == without.tobytes()


def test_a_change_leads_on_from_either_of_the_last_two_broadcasts_and_from_no_other(narrow):
    for number in (1, 2, 3):
        narrow.sent("ann", edit(number), edit(9), number)
    for number in (3, 2):
        sent = changes.sent(edit(number), edit(5), narrow.packing, generator(0))
        name = fingerprint(changes.applied(edit(number), sent.change))
        moved = narrow.received("ann", sent.packed, before=fingerprint(edit(number)), name=name)
        assert fingerprint(moved) == name
        for before, to in ((fingerprint(edit(1)), name), (fingerprint(edit(number)), "0" * 16)):
            with pytest.raises(NotHeld):
                narrow.received("ann", sent.packed, before=before, name=to)
    with pytest.raises(NotHeld):
        narrow.received("bob", sent.packed, before=fingerprint(edit(2)), name=name)
