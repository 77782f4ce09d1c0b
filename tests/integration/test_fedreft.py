"""FedReFT through the whole app: each user is sent the others' median, and keeps and mixes an edit of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fed import methods
from fed.averages.geometric_median import geometric_median
from fed.base import model as base_model
from fed.communication import wire
from fed.privacy.tensor_files import read_tensors
from fed.privacy.vault import PERSONAL
from server_strategy.grid.edits.translation import Translation
from server_strategy.grid.packing import by_user
from tests.integration.in_process import federate
from tests.integration.test_supernodes import all_losses


def edits_that_crossed(grid, way, shapes):
    """[{user: edit}] by round, of a run on one node in float64."""
    found, users = [], []
    for direction, _, message in grid.seen:
        if message.metadata.message_type != "train":
            continue
        records = message.content.array_records
        if direction == "down":
            users = json.loads(message.content.config_records["host"]["users"])
        if direction == way:
            if way == "up":
                own = by_user(message.content, len(users), Translation(shapes, "float64"))
                arrays = [own[place]["arrays"]["edit"].numpy() for place, _ in enumerate(users)]
            else:
                keys = [f"{n}/arrays" if f"{n}/arrays" in records else "arrays" for n, _ in enumerate(users)]
                arrays = [records[key]["edit"].numpy() for key in keys]
            edits = [wire.unpack(array, shapes, "float64") for array in arrays]
            found.append(dict(zip(users, edits, strict=True)))
    return found


def test_from_round_2_on_users_of_one_node_are_sent_medians_of_all_but_themselves(settings):
    run = settings(method="fedreft", rounds=3, fraction=0.5, wire_dtype="float64", max_new_tokens=0)
    _, grid, _ = federate(run, 1)
    shapes = methods.make(run, base_model.load(run.base_source).skeleton).collective_shapes()
    down, up = (edits_that_crossed(grid, way, shapes) for way in ("down", "up"))
    assert len({edit["W"].numpy().tobytes() for edit in down[0].values()}) == 1  # there is nobody to learn from yet
    latest = dict(up[0])
    for sent, answered in zip(down[1:], up[1:], strict=True):
        assert len({edit["W"].numpy().tobytes() for edit in sent.values()}) > 1
        for user, edit in sent.items():
            expected = geometric_median([latest[one] for one in sorted(latest) if one != user])
            for layer in range(2):
                M, N = ((e["R"][layer].T @ (e["W"] - e["R"])[layer]) for e in (edit, expected))
                torch.testing.assert_close(M, N, rtol=1e-6, atol=1e-9)
        latest |= answered


def test_a_user_mixes_in_the_edit_that_it_kept_in_this_run_alone(settings, tmp_path):
    def run(name, before_send=None):
        return federate(settings(method="fedreft", max_new_tokens=0, output_dir=str(tmp_path / name)), 2, before_send)

    kept, _, folder = run("kept")
    files = list((folder / "vault").glob("*/personal.stage1.safetensors"))
    trained = {row["round"]: row["users"] for row in kept["rounds"]}
    assert trained == {1: 3, 2: 3} and 3 <= len(files) <= 6
    rounds = iter(range(9))

    def forget(message_type):
        if message_type == "train" and next(rounds) == 2:  # two nodes: the second round's first message
            for path in (tmp_path / "lost").rglob("personal.stage1.safetensors"):
                path.unlink()

    lost, _, _ = run("lost", forget)
    assert lost["rounds"][0]["loss"] == kept["rounds"][0]["loss"]
    assert lost["rounds"][1]["loss"] != kept["rounds"][1]["loss"]
    for path in files:
        assert read_tensors(path)[1]["run"] == "7"


@pytest.mark.parametrize("cohorts", ["paper", "all"])
def test_the_number_of_supernodes_changes_nothing_but_rounding(settings, tmp_path, cohorts):
    reports = []
    for nodes in (1, 3):
        short = settings(
            method="fedreft",
            cohorts=cohorts,
            dtype="float64",
            wire_dtype="float64",
            max_new_tokens=0,
            output_dir=str(tmp_path / str(nodes)),
        )
        reports.append(federate(short, nodes)[0])
    arms = ("base", "stage1", "stage1+2")
    assert all_losses(reports[1], arms) == pytest.approx(all_losses(reports[0], arms), rel=1e-8)


def test_what_stage_2_makes_of_the_edit_never_crosses(settings):
    _, grid, folder = federate(settings(method="fedreft", max_new_tokens=0), 2)
    private = [read_tensors(path)[0] for path in (folder / "vault").glob(f"*/{PERSONAL}")]
    assert len(private) == 6
    needles = [wire.pack({name: tensor}).tobytes() for edit in private for name, tensor in edit.items()]
    crossed = [
        np.asarray(array.numpy()).tobytes()
        for _, _, message in grid.seen
        for record in message.content.array_records.values()
        for array in record.values()
    ]
    assert crossed and not any(needle in body for needle in needles for body in crossed)
