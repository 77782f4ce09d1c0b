"""What an export takes from a method: where its edits apply is what the method itself trains, or it gets one line."""

import pytest
import torch

from fed import methods
from fed.base.skeleton import Skeleton
from fed.edits.loreft import EditShape
from fed.edits.positions import Positions
from fed.methods import exported
from fed.methods.method import LoReFTKeys
from fed.methods.reft import ReFT
from fed.settings.methods import METHODS, Entry
from fed.settings.rules import SettingsError
from tests.fed.methods.test_cost import settings

BASE = Skeleton("tiny", 0, 8, 4, ())
PLACES = {"layers": "1,2,3", "stage2_layers": "last2", "positions": "l2", "stage2_positions": "all"}


def edit_of(shapes):
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("method", [name for name in METHODS if methods.class_of(name).loreft])
def test_the_blocks_and_tokens_of_an_export_are_those_that_the_method_trains(method):
    run = settings(method=method, **PLACES)
    made = methods.make(run, BASE)
    collective, private = edit_of(made.collective_shapes()), edit_of(made.private_shapes())
    expected = [(made.collective, made.positions)] if made.collective else []
    if made.private:
        expected = [] if made.loreft.replaces else expected
        expected.append((made.private, made.private_positions))
    edits = exported.edits(run.as_config(), collective, private)
    assert [blocks for blocks, _, _ in edits] == [shape.blocks for shape, _ in expected]
    assert [Positions.parse(rule) for _, _, rule in edits] == [positions for _, positions in expected]


@pytest.mark.parametrize("method", [name for name in METHODS if not methods.class_of(name).loreft])
def test_a_method_without_loreft_edits_gets_one_line(method):
    with pytest.raises(SettingsError, match=f"is for LoReFT edits, and this vault is of '{method}'; take safetensors"):
        exported.edits({"method": method}, {}, {})


class AtTheFirstBlock(ReFT):
    """A method of one's own, whose edit is at the first of stage 1's blocks, whatever the run config says."""

    def __init__(self, settings, base):
        super().__init__(settings, base)
        self.private = EditShape(settings.edited_layers(base.layers)[:1], 1, base.hidden_size)


class AtStage1sBlocks(ReFT):
    """A method of one's own that says where its edit applies."""

    loreft = LoReFTKeys("layers", "positions")

    def __init__(self, settings, base):
        super().__init__(settings, base)
        self.private = EditShape(settings.edited_layers(base.layers), 1, base.hidden_size)


def test_a_method_of_ones_own_is_exported_by_what_it_says_and_one_that_says_wrong_gets_one_line(monkeypatch):
    for name in ("AtTheFirstBlock", "AtStage1sBlocks"):
        monkeypatch.setitem(METHODS, name, Entry(f"{__name__}.{name}"))
    says = settings(method="AtStage1sBlocks", **PLACES)
    ((blocks, tensors, rule),) = exported.edits(
        says.as_config(), {}, edit_of(methods.make(says, BASE).private_shapes())
    )
    assert (blocks, rule, tensors["R"].shape) == ((1, 2, 3), "l2", (3, 1, 8))
    wrong = settings(method="AtTheFirstBlock", **PLACES)
    with pytest.raises(SettingsError, match=r"of the 2 blocks that its settings name, got R \(1, 1, 8\)") as caught:
        exported.edits(wrong.as_config(), {}, edit_of(methods.make(wrong, BASE).private_shapes()))
    assert "'AtTheFirstBlock' must say in `loreft`" in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.delitem(METHODS, "AtStage1sBlocks")  # a vault of a method that this checkout has not
    with pytest.raises(SettingsError, match="this vault is of 'AtStage1sBlocks'; take safetensors"):
        exported.edits(says.as_config(), {}, {})
