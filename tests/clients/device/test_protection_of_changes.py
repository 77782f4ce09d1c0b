"""On a narrow wire an edit's rules hold for the edit that a change leads to."""

from __future__ import annotations

import json

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from simulation.in_process import FIRST_NODE, InProcessGrid

from fed.communication import changes
from fed.communication.on_device import NOT_HELD, OnDevice
from fed.edits.stiefel import random_rows
from fed.privacy.tensor_files import fingerprint
from fed.privacy.vault import Vault
from fed.randomness import generator
from fed.resuming.of_run import BROADCAST, OfRun
from tests.clients.device.test_protection import WITHIN, device  # noqa: F401  a fixture

SHAPES = {"R": (1, 4, 32), "W": (1, 4, 32), "b": (1, 4)}


@pytest.fixture
def ask(device, settings, tmp_path):  # noqa: F811
    """ask(change, before=…, name=…) -> the reply of a device that has a broadcast edit, `ask.start`."""
    run = settings(**WITHIN, wire_dtype="int8")
    R = random_rows(SHAPES["R"], torch.Generator().manual_seed(0))
    start = {"R": R, "W": R.clone(), "b": torch.zeros(SHAPES["b"])}
    of_run = OfRun(Vault(tmp_path / "vault"), run.run_folder(7).name, "", {})
    of_run.keep_own("alice", start, 1, names=BROADCAST)
    narrow = OnDevice.of(of_run, SHAPES, run)

    def asked(end, *, before=None, name=None, array=None, kind="train"):
        sent = changes.sent(start, end, narrow.packing, generator(0))
        moved = changes.applied(start, sent.change)
        names = {"from": before or fingerprint(start), "to": name or fingerprint(moved)}
        content = RecordDict(
            {
                "host": ConfigRecord({"users": json.dumps(["alice"])}),
                "config": ConfigRecord({"server-round": 2}),
                "arrays": ArrayRecord({"change": Array(sent.packed if array is None else array)}),
                "change": ConfigRecord(names),
            }
        )
        message = Message(content, dst_node_id=FIRST_NODE, message_type=kind)
        (reply,) = InProcessGrid([device], run, 7).send_and_receive([message])
        return reply.error.reason

    asked.start = start
    return asked


@pytest.mark.parametrize("kind", ["train", "query.adopt"])
def test_a_change_that_leads_out_of_bounds_is_refused_before_the_history_is_read(ask, kind):
    assert "the history must be an existing" in ask(ask.start, kind=kind)
    far = {**ask.start, "b": torch.full(SHAPES["b"], 1e6)}
    assert ask(far, kind=kind).startswith("policy: a collective edit's |b| must be at most 0.25")
    turned = {**ask.start, "R": ask.start["R"] * 2, "W": ask.start["W"] * 2}
    assert ask(turned, kind=kind).startswith("policy: a collective edit's R must be orthonormal")


def test_a_change_of_what_is_not_here_or_that_leads_elsewhere_says_so(ask):
    assert ask(ask.start, before="0" * 16) == NOT_HELD
    assert ask(ask.start, name="0" * 16) == NOT_HELD


def test_bytes_that_are_no_change_are_refused(ask):
    import numpy as np

    for array in (np.zeros(7, np.uint8), np.zeros(0, np.uint8), np.zeros(10_000, np.uint8), np.zeros(7, np.float32)):
        reason = ask(ask.start, array=array)
        assert reason != NOT_HELD and "history" not in reason
