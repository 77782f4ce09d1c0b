"""A GGUF file in parts is read whole, or refused by what is missing."""

import os

import pytest
import torch

from fed.base.model import load
from fed.base.sources import BaseModelError, check


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("given", [0, 2])
def test_all_parts_are_read_whichever_is_given(tmp_path, write_gguf, given):
    write_gguf(tmp_path / "whole.gguf", seed=5)
    parts = write_gguf(tmp_path / "tiny.gguf", parts=3, seed=5)
    whole = load(str(tmp_path / "whole.gguf"), device="cpu", dtype="float32")
    joined = load(str(parts[given]), device="cpu", dtype="float32")
    assert joined.name == parts[given].name
    for (name, one), (_, other) in zip(whole.model.named_parameters(), joined.model.named_parameters(), strict=True):
        assert torch.equal(one, other), name
    assert joined.tokenizer("ab cd")["input_ids"] == whole.tokenizer("ab cd")["input_ids"]
    (folder,) = (tmp_path / "cache" / "base").glob("tiny-*")
    assert not list(folder.glob("*.gguf"))


def _one_part_gone(folder, write):
    parts = write(folder / "tiny.gguf", parts=3)
    parts[1].unlink()
    return parts[0]


def _a_part_alone_under_another_name(folder, write):
    return write(folder / "tiny.gguf", parts=2)[0].rename(folder / "model.gguf")


def _cut_short(folder, write):
    (file,) = write(folder / "tiny.gguf")
    os.truncate(file, file.stat().st_size - 3000)
    return file


def _one_part_cut_short(folder, write):
    parts = write(folder / "tiny.gguf", parts=2)
    os.truncate(parts[1], parts[1].stat().st_size // 2)
    return parts[0]


def _half_of_the_blocks(folder, write):
    return write(folder / "tiny.gguf", leave_out="blk.3.")[0]


def _one_weight_gone(folder, write):
    return write(folder / "tiny.gguf", leave_out="blk.2.ffn_up")[0]


def _a_pointer(folder, write):
    file = folder / "tiny.gguf"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 92000000\n")
    return file


WAYS = {
    _one_part_gone: "one of 3 parts, and 1 of them are not beside it, .*tiny-00002-of-00003.gguf",
    _a_part_alone_under_another_name: "is one of 2 parts; name them",
    _cut_short: "cut short",
    _one_part_cut_short: "tiny-00002-of-00002.gguf.*cut short",
    _half_of_the_blocks: "must hold 4 blocks, but it has no tensor of block 3",
    _one_weight_gone: "lacks 1 weights, model.layers.2.mlp.up_proj.weight",
    _a_pointer: "pointer",
}


@pytest.mark.parametrize("way", WAYS, ids=[way.__name__ for way in WAYS])
def test_a_gguf_file_that_is_not_whole_is_refused_before_the_run_and_at_the_load(tmp_path, write_gguf, way):
    source = str(way(tmp_path, write_gguf))
    for act in (check, load):
        with pytest.raises(BaseModelError, match=WAYS[way]) as error:
            act(source)
        assert "\n" not in str(error.value)
    assert not list((tmp_path / "cache").glob("base/*"))
