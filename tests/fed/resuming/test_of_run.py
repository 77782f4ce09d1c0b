"""What a vault holds of one run: who is done, and the collective edits that users keep for a round done again."""

from __future__ import annotations

import pytest
import torch

from fed.privacy.vault import PERSONAL, Vault
from fed.resuming.of_run import OfRun

MADE = {"base": "b" * 16, "collective": "c" * 16}
DECIDING = {"seed": 0, "clip": 0.3}
NUMBERS = {"num-examples": 5, "steps": 4, "epoch-1": 1 / 3}


@pytest.fixture
def vault(tmp_path):
    return Vault(tmp_path)


def test_who_is_done_in_this_run_is_known_with_what_the_training_did(vault):
    run = OfRun(vault, "17", "{}", DECIDING)
    assert run.done("ann", **MADE) is None
    assert run.write({"ann": ({"W": torch.ones(2)}, NUMBERS)}, **MADE) == {}
    assert run.done("ann", **MADE) == NUMBERS
    assert torch.equal(vault.read("ann", base=MADE["base"], collective=MADE["collective"])["W"], torch.ones(2))
    # Another run, base, collective edit, or settings; a damaged file; one of an earlier release.
    assert OfRun(vault, "18", "{}", DECIDING).done("ann", **MADE) is None
    assert OfRun(vault, "17", "{}", DECIDING | {"seed": 1}).done("ann", **MADE) is None
    for key, other in (("base", "x"), ("collective", "x")):
        assert run.done("ann", **MADE | {key: other}) is None
    file = vault.folder("ann") / PERSONAL
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    assert run.done("ann", **MADE) is None
    assert list(run.unreadable(["ann", "bob"], **MADE, method="perfit", task="LaMP_7")) == ["ann"]
    vault.write("ann", {"W": torch.ones(2)}, base=MADE["base"], collective=MADE["collective"], settings="{}")
    assert run.done("ann", **MADE) is None


def test_a_round_that_is_done_again_begins_with_what_was_kept_before_it(vault):
    run = OfRun(vault, "17", "{}", DECIDING)

    def edit(value):
        return {"W": torch.full((2,), float(value))}

    def own(before_round):
        kept = run.own("ann", before_round=before_round)
        return kept and float(kept["W"][0])

    assert own(1) is None
    run.keep_own("ann", edit(1), 1)
    run.keep_own("ann", edit(3), 3)  # not drawn in round 2
    assert (own(1), own(2), own(3), own(4)) == (None, 1.0, 1.0, 3.0)
    run.keep_own("ann", edit(3.5), 3)  # round 3 done again
    assert (own(3), own(4)) == (1.0, 3.5)
    assert OfRun(vault, "18", "{}", DECIDING).own("ann", before_round=9) is None
    file = vault.folder("ann") / "personal.stage1.safetensors"
    file.write_bytes(file.read_bytes()[:-1])  # damaged: the user goes on with the one before
    assert own(4) == 1.0
