"""A node's users by the portion: same training, same partners, and the whole list of replies."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from clients import portions
from fed.privacy.vault import PERSONAL
from tests.integration.in_process import federate


def test_every_user_is_in_one_portion_in_the_order_of_the_list(monkeypatch):
    monkeypatch.setattr(portions, "SIZE", 4)
    users = [str(n) for n in range(10)]
    parts = portions.portions(users)
    assert [place for part in parts for place in part] == list(range(10))
    assert [len(part) for part in parts] == [4, 4, 2]
    assert portions.said(parts[1], users) == "users 5 to 8 of 10"
    assert portions.said(portions.portions(users[:4])[0], users[:4]) == "4 users"
    assert portions.portions([]) == []


@pytest.mark.parametrize("method", ["perfit", "fedreft"])
def test_portions_of_two_give_what_one_portion_of_all_gives(settings, tmp_path, monkeypatch, method):
    found = {}
    for size in (64, 2):
        monkeypatch.setattr(portions, "SIZE", size)
        # float64: on one thread, what a row is padded to rounds its attention another way
        wide = {"dtype": "float64", "wire_dtype": "float64", "output_dir": str(tmp_path / str(size))}
        report, _, folder = federate(settings(method=method, rounds=1, fraction=1.0, **wide), 2)
        tensors = {path.parent.name: load_file(path) for path in sorted((folder / "vault").glob(f"*/{PERSONAL}"))}
        found[size] = report, tensors
    (whole, tensors), (parts, others) = found[64], found[2]
    assert whole["rounds"][0]["loss"] == pytest.approx(parts["rounds"][0]["loss"], rel=1e-9)
    losses = [[epoch["loss"] for epoch in report["stage2_losses"]] for report in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9) and whole["bytes"] == parts["bytes"]
    assert tensors.keys() == others.keys() and len(tensors) == 6
    for user, own in tensors.items():
        for name, value in own.items():
            torch.testing.assert_close(value, others[user][name], rtol=1e-7, atol=1e-9)
    for one, other in zip(whole["users"], parts["users"], strict=True):
        for arm in ("base", "stage1", "stage1+2", "swapped"):  # the partner beyond the portion among them
            found_losses = [user["arms"][arm]["loss_per_token"] for user in (one, other)]
            assert found_losses[0] == pytest.approx(found_losses[1], rel=1e-9)
