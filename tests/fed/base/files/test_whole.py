"""Every way in which a base's folder can lack something is refused, by the check before a run and by the load alike."""

import json
import os
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from fed.base.files.whole import INDEX, WEIGHTS
from fed.base.model import load
from fed.base.sources import BaseModelError, check, fingerprint

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 538090408\n"


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))


def _edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def _parts(folder):
    return sorted(folder.glob("model-*.safetensors"))


def _weight_in_the_wrong_part(folder):
    first, last = _parts(folder)[0].name, _parts(folder)[-1].name
    _edit(
        folder / INDEX,
        lambda index: index["weight_map"].update(
            {name: first if file == last else file for name, file in index["weight_map"].items()}
        ),
    )


def _without_a_head(folder):
    tensors = load_file(folder / WEIGHTS)
    del tensors["lm_head.weight"]
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def _pickled(folder):
    (folder / WEIGHTS).unlink()
    torch.save({}, folder / "pytorch_model.bin")


# way: (whether the weights lie in parts, what happens to the folder, what the refusal says)
WAYS = {
    "no weights": (False, lambda f: (f / WEIGHTS).unlink(), "must hold model.safetensors"),
    "pickled weights alone": (False, _pickled, "pickled weights .* are never read"),
    "weights of a LFS pointer": (False, lambda f: (f / WEIGHTS).write_text(POINTER), "is a pointer .*git lfs pull"),
    "an annex pointer": (False, lambda f: (f / WEIGHTS).write_text("/annex/objects/SHA256E-s5--a"), "is a pointer"),
    "empty weights": (False, lambda f: (f / WEIGHTS).write_bytes(b""), "is empty"),
    "noise for weights": (False, lambda f: (f / WEIGHTS).write_bytes(b"noise" * 40), "is none"),
    "a page for weights": (False, lambda f: (f / WEIGHTS).write_text("<html>404</html>"), "is none|is cut short"),
    "weights cut in a tensor": (False, lambda f: os.truncate(f / WEIGHTS, 9000), "is cut short"),
    "weights cut in the header": (False, lambda f: os.truncate(f / WEIGHTS, 500), "is cut short|is none"),
    "weights under another name": (False, lambda f: (f / WEIGHTS).rename(f / "tiny.safetensors"), "rename it"),
    "an adapter": (False, lambda f: [(f / "config.json").rename(f / "adapter_config.json")], "holds an adapter"),
    "a part missing": (True, lambda f: _parts(f)[1].unlink(), "lacks 1 of"),
    "a link to nothing": (True, lambda f: [_parts(f)[1].unlink(), os.symlink("/gone/x", f / "x.safetensors")], "lacks"),
    "a part of a LFS pointer": (True, lambda f: _parts(f)[1].write_text(POINTER), "is a pointer"),
    "a part cut short": (True, lambda f: os.truncate(_parts(f)[1], _parts(f)[1].stat().st_size - 1), "is cut short"),
    "no index": (True, lambda f: (f / INDEX).unlink(), "need model.safetensors.index.json"),
    "an index of nothing": (True, lambda f: (f / INDEX).write_text('{"weight_map": {}}'), "must map weights"),
    "an index that is no JSON": (True, lambda f: (f / INDEX).write_text("{"), "must be JSON"),
    "an index that points elsewhere": (
        True, lambda f: _edit(f / INDEX, lambda i: i["weight_map"].update(x="../../etc/x")), "to files beside it"),
    "a weight in no part": (True, _weight_in_the_wrong_part, "lacks '"),
    "no config": (False, lambda f: (f / "config.json").unlink(), "must hold a config.json"),
    "config of a LFS pointer": (False, lambda f: (f / "config.json").write_text(POINTER), "is a pointer"),
    "config that is no JSON": (False, lambda f: (f / "config.json").write_text("{nope"), "must be JSON"),
    "config of a list": (False, lambda f: (f / "config.json").write_text("[]"), "must be a JSON object"),
    "more blocks than weights": (
        False, lambda f: _edit(f / "config.json", lambda c: c.update(num_hidden_layers=6)), "lacks 18 weights"),
    "no head": (False, _without_a_head, "lacks 1 weights, lm_head.weight"),
    "no tokenizer": (False, lambda f: [p.unlink() for p in f.glob("token*")], "must hold a tokenizer"),
    "no vocabulary": (False, lambda f: (f / "tokenizer.json").unlink(), "must hold a tokenizer"),
    "a vocabulary without merges": (
        False, lambda f: (f / "tokenizer.json").rename(f / "vocab.json"), "it has vocab.json alone"),
    "tokenizer of a LFS pointer": (False, lambda f: (f / "tokenizer.json").write_text(POINTER), "is a pointer"),
    "tokenizer cut short": (False, lambda f: os.truncate(f / "tokenizer.json", 900), "is cut short"),
    "a tokenizer of nothing": (
        False, lambda f: _edit(f / "tokenizer.json", lambda t: t["model"].update(vocab={"<unk>": 2})), "tokenizer"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_that_is_not_whole_is_refused_before_the_run_and_at_the_load(saved, way):
    shards, damage, says = WAYS[way]
    folder = saved(shards=shards)
    damage(folder)
    refusals = set()
    for act in (check, load):
        with pytest.raises(BaseModelError, match=says) as error:
            act(str(folder))
        refusals.add(str(error.value))
    (refusal,) = refusals  # they agree
    assert "\n" not in refusal and refusal.startswith("base-model") and str(folder) in refusal


def test_a_folder_in_parts_is_read_whole(saved, tiny_llama):
    folder = saved(shards=True)
    assert len(_parts(folder)) > 2
    check(str(folder))
    base = load(str(folder), device="cpu", dtype="float32")
    for name, parameter in tiny_llama().named_parameters():
        assert torch.equal(base.model.get_parameter(name), parameter)


def test_what_is_not_read_does_not_count(saved):
    """Other formats of the same weights are left alone: they are neither opened nor part of what the base is."""
    folder = saved()
    plain = fingerprint(folder)
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    (folder / "model.fp16.safetensors").write_text(POINTER)
    (folder / "consolidated.safetensors").write_bytes(b"noise")
    (folder / "original").mkdir()
    check(str(folder))
    load(str(folder), device="cpu", dtype="float32")
    assert fingerprint(folder) == plain


@pytest.mark.parametrize("name", ["spiece.model", "qwen.tiktoken", "chat_template.jinja"])
def test_a_check_is_remembered_until_a_file_changes(saved, monkeypatch, name):
    folder = saved()
    check(str(folder))
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: pytest.fail("read again"))
    check(str(folder))
    (folder / "README.md").write_text("a model")
    check(str(folder))
    shutil.copy(folder / "tokenizer.json", folder / name)
    with pytest.raises(pytest.fail.Exception, match="read again"):
        check(str(folder))


def test_a_quantized_base_is_checked_on_every_machine_anew(saved, monkeypatch):
    """What it needs besides its files, a library or a GPU, may be on one machine and not on the next."""
    folder = saved()
    _edit(folder / "config.json", lambda c: c.update(quantization_config={"quant_method": "gptq", "bits": 4}))
    with monkeypatch.context() as all_there:
        all_there.setattr("transformers.quantizers.auto.get_hf_quantizer", lambda *_: None)
        check(str(folder))
    with pytest.raises(BaseModelError, match="cannot be loaded"):
        check(str(folder))


def test_the_check_reads_no_weights(saved, monkeypatch):
    folder = saved()
    real = transformers.AutoModelForCausalLM.from_pretrained
    devices = set()

    def watched(*what, **how):
        model, info = real(*what, **how)
        devices.update(p.device.type for p in model.parameters())
        return model, info

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", watched)
    check(str(folder))
    assert devices == {"meta"}


def test_nothing_asks_for_a_strangers_code(saved, monkeypatch):
    """Every call says so itself, and a folder that brings code of its own is not run."""
    folder = saved()
    _edit(
        folder / "config.json",
        lambda c: c.update(model_type="ours", auto_map={"AutoConfig": "ours.C", "AutoModelForCausalLM": "ours.M"}),
    )
    (folder / "ours.py").write_text("raise SystemExit('run')")
    with pytest.raises(BaseModelError) as error:
        check(str(folder))
    assert "\n" not in str(error.value)
