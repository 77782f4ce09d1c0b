"""A base in another dtype than its files': converted once, mapped, the same bits, and only where that pays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open

from fed.base import device, mapped_weights, sources
from fed.base import model as base_model
from fed.base.architecture import grouped_attention

DTYPES = device.DTYPES


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mapped_weights, "SMALLEST", 0)
    base_model.forget()
    yield
    base_model.forget()


@pytest.fixture
def folder_of(tmp_path, tiny_llama, tiny_tokenizer):
    """A tiny Llama with its tokenizer in a folder."""

    def save(stored=torch.bfloat16, shard="50GB", **changes):
        folder = tmp_path / "tiny"
        tiny_llama(0, **changes).to(stored).save_pretrained(folder, max_shard_size=shard)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return save


def copies(tmp_path) -> list[Path]:
    return sorted((tmp_path / "cache" / "weights").glob("*"))


def mappings(folder: Path) -> list[tuple[str, dict[str, int]]]:
    """(permissions, {field: kB}) of this process's mappings of the files in a folder."""
    found: list[tuple[str, dict[str, int]]] = []
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, *rest = line.split()
        if not first.endswith(":"):
            inside = str(folder) in line
            if inside:
                found.append((rest[0], {}))
        elif inside and rest[-1] == "kB":
            found[-1][1][first[:-1]] = int(rest[0])
    return found


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True}], ids=["untied", "tied"])
@pytest.mark.parametrize("shard", ["50GB", "40kB"], ids=["one file", "several"])
@pytest.mark.parametrize(
    ("stored", "wanted"), [("bfloat16", "float32"), ("float32", "bfloat16"), ("float16", "float64")]
)
def test_numbers_and_gradients_are_those_of_a_load_that_converts(folder_of, tmp_path, stored, wanted, shard, changes):
    folder = folder_of(DTYPES[stored], shard, **changes)
    base = base_model.load(str(folder), device="cpu", dtype=wanted)
    assert len(copies(tmp_path)) == 1
    attention = "sdpa" if wanted == "float64" else "eager"
    plain = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=DTYPES[wanted], attn_implementation=attention
    ).requires_grad_(False)
    grouped_attention.use(plain)
    ours, theirs = base.model.state_dict(), plain.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].dtype == DTYPES[wanted] and torch.equal(ours[name], theirs[name]) for name in theirs)
    found = []
    for model in (base.model, plain.eval()):
        states = torch.randn(2, 9, 32, generator=torch.Generator().manual_seed(1)).to(DTYPES[wanted])
        states.requires_grad_()
        logits = model(inputs_embeds=states).logits
        logits.square().sum().backward()
        found.append((logits.detach(), states.grad))
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_the_weights_are_pages_of_the_file_and_nothing_writes_into_them(folder_of, tmp_path):
    base = base_model.load(str(folder_of()), device="cpu", dtype="float32")
    base.model(input_ids=torch.tensor([[5, 9, 40, 7]]))
    found = mappings(copies(tmp_path)[0])
    assert found and all(permissions.endswith("p") for permissions, _ in found)
    assert sum(kb["Rss"] for _, kb in found) > 0 and sum(kb["Private_Dirty"] for _, kb in found) == 0
    at = {tuple(int(end, 16) for end in line.split()[0].split("-")) for line in _lines(copies(tmp_path)[0])}
    for name, parameter in base.model.named_parameters():
        assert any(start <= parameter.data_ptr() < end for start, end in at), name


def _lines(folder: Path) -> list[str]:
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]


def test_the_tensors_of_a_copy_begin_where_an_allocator_would_put_them(folder_of, tmp_path):
    base_model.load(str(folder_of()), device="cpu", dtype="float32")
    body = (copies(tmp_path)[0] / "model.safetensors").read_bytes()
    assert (8 + int.from_bytes(body[:8], "little")) % 64 == 0


def test_the_fingerprint_is_that_of_the_files_the_copy_was_made_from(folder_of):
    folder = folder_of()
    prints = {base_model.load(str(folder), device="cpu", dtype=d).fingerprint for d in ("float32", "bfloat16")}
    assert prints == {sources.fingerprint(folder)}


def test_weights_that_change_are_converted_again(folder_of, tmp_path, tiny_llama):
    folder = folder_of()
    before = mapped_weights.folder_in(folder, torch.float32, tmp_path / "cache")
    assert mapped_weights.folder_in(folder, torch.float32, tmp_path / "cache") == before
    tiny_llama(1).to(torch.bfloat16).save_pretrained(folder)
    after = mapped_weights.folder_in(folder, torch.float32, tmp_path / "cache")
    assert after != before
    with safe_open(after / "model.safetensors", framework="pt") as opened:
        assert torch.equal(opened.get_tensor("lm_head.weight"), tiny_llama(1).lm_head.weight.bfloat16().float())


def _no_room(monkeypatch, folder):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(100_000))


def _small(monkeypatch, folder):
    monkeypatch.setattr(mapped_weights, "SMALLEST", 64 << 20)


def _quantized(monkeypatch, folder):
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("{", '{"quantization_config": {"quant_method": "gptq"},', 1))


def _unknown(monkeypatch, folder):
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("LlamaForCausalLM", "OurOwnForCausalLM"))


def _keeps_some_in_float32(monkeypatch, folder):
    monkeypatch.setattr(transformers.LlamaForCausalLM, "_keep_in_fp32_modules", ["norm"])


def _a_file_where_the_cache_should_be(monkeypatch, folder):
    (folder.parent / "cache").write_text("")


def _damaged(monkeypatch, folder):
    (folder / "model.safetensors").write_bytes(b"noise for weights, with a header of absurd length")


_REASONS = [_no_room, _small, _quantized, _unknown, _keeps_some_in_float32, _damaged]


@pytest.mark.parametrize("make", [*_REASONS, _a_file_where_the_cache_should_be])
def test_where_a_copy_does_not_pay_or_cannot_be_made_the_folder_is_loaded(folder_of, tmp_path, monkeypatch, make):
    folder = folder_of()
    make(monkeypatch, folder)
    assert mapped_weights.folder_in(folder, torch.float32, tmp_path / "cache") == folder
    assert copies(tmp_path) == []


def test_files_that_have_the_dtype_are_loaded_as_they_are(folder_of, tmp_path):
    folder = folder_of(torch.float32)
    assert mapped_weights.folder_in(folder, torch.float32, tmp_path / "cache") == folder


def test_a_disk_that_fills_up_half_way_leaves_nothing_behind(folder_of, tmp_path, monkeypatch):
    folder = folder_of()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert mapped_weights.folder_in(folder, torch.float32, tmp_path / "cache") == folder
    assert list((tmp_path / "cache" / "weights").iterdir()) == []


def test_who_comes_while_a_copy_is_made_waits_for_it_and_makes_none(folder_of, tmp_path, monkeypatch):
    folder, convert, made, second_asks = folder_of(), mapped_weights._convert, [], threading.Event()
    pays = mapped_weights._pays

    def slowly(source, target, dtype):
        made.append(source)
        assert second_asks.wait(10)
        convert(source, target, dtype)

    def asked(*arguments):
        if made:
            second_asks.set()
        return pays(*arguments)

    monkeypatch.setattr(mapped_weights, "_convert", slowly)
    monkeypatch.setattr(mapped_weights, "_pays", asked)
    with ThreadPoolExecutor(2) as both:
        first = both.submit(mapped_weights.folder_in, folder, torch.float32, tmp_path / "cache")
        while not made:
            time.sleep(0.01)
        second = both.submit(mapped_weights.folder_in, folder, torch.float32, tmp_path / "cache")
        assert first.result() == second.result() == copies(tmp_path)[0]
    assert len(made) == 1


@pytest.mark.nightly
def test_processes_that_convert_at_one_time_end_with_one_whole_copy(folder_of, tmp_path):
    program = (
        "import sys, torch; from pathlib import Path; from fed.base import mapped_weights; mapped_weights.SMALLEST = 0;"
        "print(mapped_weights.folder_in(Path(sys.argv[1]), torch.float32, Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", program, str(folder_of()), str(tmp_path / "cache")]
    racers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {racer.communicate(timeout=120)[0].strip() for racer in racers}
    assert said == {str(folder) for folder in copies(tmp_path)} and len(said) == 1


def test_a_gpu_converts_while_it_loads(folder_of, tmp_path, monkeypatch):
    """No copy is made for another device than the CPU; `meta` stands for one that every machine has."""
    monkeypatch.setattr(base_model, "choose_device", lambda wanted: wanted)
    base_model.load(str(folder_of()), device="meta", dtype="float32")
    assert copies(tmp_path) == []
