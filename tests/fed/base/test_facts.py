"""A base model's facts: remembered, they are those of the loaded model, and nothing is loaded for them."""

import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file

from fed.base import facts as base_facts
from fed.base import model as base_model
from fed.base.facts import facts
from fed.base.sources import BaseModelError


@pytest.fixture
def base(tiny_llama, tiny_tokenizer, tmp_path, monkeypatch):
    """A base model's folder of this test's own, with a cache of its own."""
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))
    tiny_llama(seed=3).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def no_loading(monkeypatch):
    def refuse(*_):
        raise AssertionError("the model was loaded")

    return lambda: monkeypatch.setattr(base_model, "_load", refuse)


def test_remembered_facts_are_those_of_the_loaded_model(base, no_loading):
    loaded = base_model.load(str(base), dtype="float32")
    first = facts(str(base), dtype="float32")
    no_loading()
    again = facts(str(base), dtype="float32")
    assert first == again == base_facts.of(loaded)
    assert again.description == loaded.describe() and again.skeleton == loaded.skeleton


def test_other_weights_another_dtype_and_a_spoilt_cache_are_loaded_anew(base, no_loading, tmp_path):
    first = facts(str(base), dtype="float32")
    assert facts(str(base), dtype="bfloat16").description["dtype"] == "bfloat16"
    (path,) = (tmp_path / "cache" / "facts").glob("*-cpu-float32.json")
    for content in ("", "{}", '{"description": {}, "skeleton": {"linears": 3}}', "[1]"):
        path.write_text(content)
        assert facts(str(base), dtype="float32") == first
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    no_loading()
    with pytest.raises(AssertionError, match="was loaded"):
        facts(str(base), dtype="float32")


def test_a_cache_that_cannot_be_written_is_no_error(base, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "file"))
    assert facts(str(base), dtype="float32").skeleton.hidden_size == 32


def test_a_base_that_is_not_there_is_refused(base):
    with pytest.raises(BaseModelError):
        facts("/nowhere/model.gguf")


def test_a_process_that_only_asks_for_facts_does_not_import_transformers(base):
    facts(str(base))
    code = (
        "import sys; from clients import app; from fed.base.facts import facts; "
        f"print(facts({str(base)!r}).skeleton.layers, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["4", "False"], done.stderr


def test_what_a_machine_has_of_a_base_is_told_without_loading_fetching_or_making_a_cache(base, no_loading, tmp_path):
    loaded = base_facts.of(base_model.load(str(base)))
    no_loading()
    for _ in range(2):
        fingerprint, shapes = base_facts.here(str(base))
        assert fingerprint == loaded.fingerprint
        assert (shapes.parameters, shapes.hidden_size, shapes.layers, shapes.linears) == (
            loaded.skeleton.parameters, loaded.skeleton.hidden_size, loaded.skeleton.layers, loaded.skeleton.linears,
        )  # fmt: skip
    assert base_facts.here("/nowhere") is None and base_facts.here("nobody/has-this") is None
    fingerprint, shapes = base_facts.here("embedded")
    assert fingerprint is None and shapes.parameters == 134_515_008
    assert not (tmp_path / "cache" / "base").exists()
