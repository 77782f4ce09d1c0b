"""Shapes without weights, of whatever a run takes for its base model; presets and refusals: test_costs.py."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fed.base.files import dequantized
from fed.base.model import load
from fed.base.skeleton import skeleton
from fed.base.sources import BaseModelError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("parts", [1, 2])
def test_a_gguf_file_has_the_shapes_of_the_model_that_it_loads_as_and_is_dequantized_once(
    tmp_path, write_gguf, monkeypatch, parts
):
    made = []
    make = dequantized._make
    monkeypatch.setattr(dequantized, "_make", lambda *what: (made.append(what), make(*what)))
    file = write_gguf(tmp_path / "tiny.gguf", parts=parts)[0]
    shapes = skeleton(str(file))
    assert (shapes.name, shapes.layers, shapes.hidden_size) == (file.name, 4, 32)
    loaded = load(str(file), device="cpu", dtype="float32").skeleton
    assert replace(shapes, name=loaded.name) == loaded and len(made) == 1


def test_a_folder_has_the_shapes_of_the_model_that_it_loads_as(tiny_base):
    loaded = load(str(tiny_base), device="cpu", dtype="float32").skeleton
    assert skeleton(str(tiny_base)) == loaded


def test_a_gguf_file_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(BaseModelError, match="base-model GGUF file must exist, but there is no") as caught:
        skeleton(str(tmp_path / "none.gguf"))
    assert "\n" not in str(caught.value)
