"""A causal LM read from a folder, or refused: its class, the text model inside, its decoder blocks, its tokenizer.

A base that also sees or hears (its configuration nests a `text_config`) is read by its own conditional-generation class
and used for text alone; blocks, shapes and targets of adapters are then those of the text model inside.

Promise: what `check` lets pass, the load loads; both read by `read` (`tests/fed/base/architecture/test_text_model.py`).
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fed.atomic_write import write_text
from fed.base.files.quiet import quiet
from fed.base.files.refusal import BaseModelError, reason
from fed.base.files.whole import require_whole, texts_read
from fed.base.tokens import special_ids
from fed.cache import cache_home

_GIVEN = ("input_ids", "attention_mask", "position_ids")  # what every forward pass gives a base
_SENTENCE = "Generate a headline"


def text_config(config: Any) -> Any:
    """The part of a transformers configuration that is the text decoder's; a configuration of text alone is that."""
    inner = getattr(config, "get_text_config", None)
    return config if inner is None else inner(decoder=True)


def auto_class(config: Any) -> Any:
    """transformers' automatic class that makes a causal LM of this configuration.

    Raises:
        ValueError: an encoder-decoder, an encoder, or a configuration that no class makes a causal LM of.
    """
    import transformers as t

    kind = f"it is a {config.model_type!r}"
    text = text_config(config)
    if getattr(config, "is_encoder_decoder", False) or getattr(text, "is_encoder_decoder", False):
        raise ValueError(f"a base must be a decoder that continues a text; {kind}, an encoder-decoder")
    if type(text) in t.MODEL_FOR_MASKED_LM_MAPPING and not getattr(text, "is_decoder", False):
        raise ValueError(f"a base must be a decoder that continues a text; {kind}, an encoder that fills gaps")
    for mapping, name in (
        (t.MODEL_FOR_CAUSAL_LM_MAPPING, "AutoModelForCausalLM"),
        (t.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, "AutoModelForImageTextToText"),
        (t.MODEL_FOR_MULTIMODAL_LM_MAPPING, "AutoModelForMultimodalLM"),
    ):
        if type(config) in mapping:
            return getattr(t, name)
    raise ValueError(f"a base must be a decoder that continues a text; {kind}, of which transformers makes none")


def read(
    folder: Path, source: str, *, dtype: torch.dtype, attention: str | None = None, weightless: bool = False
) -> nn.Module:
    """The causal LM of a folder whose files are whole (`fed.base.files.whole`), on the host.

    Args:
        source: the base as it was asked for, for errors.
        attention: transformers' name of an implementation; None leaves its default.
        weightless: on torch's meta device; headers of weight files are read, weights are not.
    Raises:
        BaseModelError: not to be read, weights that would be filled at random, or nothing to edit.
    """
    from transformers import AutoConfig

    ours: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    with quiet():
        try:
            config = AutoConfig.from_pretrained(folder, **ours)
            model, loading = auto_class(config).from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attention,
                use_safetensors=True,  # never pickled weights
                output_loading_info=True,
                device_map="meta" if weightless else None,
                **ours,
            )
        except Exception as error:
            raise BaseModelError(f"base-model {source!r} cannot be loaded: {reason(error)}") from error
    for key, what in (("missing_keys", "lacks"), ("mismatched_keys", "has other shapes for")):
        if lacking := sorted(str(k) for k in loading[key]):  # transformers would fill them with random numbers
            raise BaseModelError(f"base-model {source!r} {what} {len(lacking)} weights, {lacking[0]} among them")
    require_editable(model, source)
    return model


def require_editable(model: nn.Module, source: str) -> None:
    """Raise BaseModelError where a model has no decoder blocks to edit, or does not read texts as others do."""
    try:
        decoder_blocks(model)
    except ValueError as error:
        raise BaseModelError(f"base-model {source!r} cannot be edited: {error}") from error
    takes = inspect.signature(model.forward).parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in takes.values())
    if refused := [one for one in _GIVEN if one not in takes and not open_ended]:
        raise BaseModelError(
            f"base-model {source!r} must read {', '.join(_GIVEN)}, but {type(model).__name__} takes no {refused[0]}"
        )


def read_tokenizer(folder: Path, source: str) -> Any:
    """The tokenizer of a folder.

    Raises:
        BaseModelError: not to be read, without an end of sequence, or one that cannot write a plain sentence.
    """
    from transformers import AutoTokenizer

    with quiet():
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except Exception as error:
            raise BaseModelError(f"base-model {source!r}: its tokenizer cannot be loaded: {reason(error)}") from error
    if tokenizer.eos_token_id is None:
        raise BaseModelError(f"base-model {source!r}: its tokenizer has no end-of-sequence token")
    ids = tokenizer(_SENTENCE, add_special_tokens=False)["input_ids"]
    if not set(ids) - set(tokenizer.all_special_ids):
        raise BaseModelError(
            f"base-model {source!r}: its tokenizer must write plain text, but {_SENTENCE!r} becomes {ids}: "
            f"its vocabulary is missing or another model's"
        )
    return tokenizer


def require_embeddings(tokenizer: Any, model: Any, source: str) -> None:
    """Raise BaseModelError where the tokenizer writes tokens that the model has no embedding of."""
    count = int(model.get_input_embeddings().weight.shape[0])
    if beyond := special_ids.without_embedding(tokenizer, count):
        raise BaseModelError(
            f"base-model {source!r}: every token must have an embedding, and the model has {count}, but the "
            f"tokenizer writes {beyond[0]!r} as {beyond[1]}; give the model's own tokenizer or resize its embeddings"
        )


def check(folder: Path, source: str) -> None:
    """Raise BaseModelError where the load would; a folder that passed is remembered by its files' sizes and times.

    A quantized one is asked again each time: whether it can be loaded is a question of this machine's libraries too.
    """
    remembered = cache_home() / "checked" / _key(folder)
    if remembered.is_file():
        return
    tokenizer = read_tokenizer(folder, source)
    if "quantization_config" in json.loads((folder / "config.json").read_text(encoding="utf-8-sig")):
        _require_quantizer(folder, source)  # whose own loader cannot do without weights
        return
    require_embeddings(tokenizer, read(folder, source, dtype=torch.bfloat16, weightless=True), source)
    with suppress(OSError):  # a cache that cannot be written costs time, no more
        remembered.parent.mkdir(parents=True, exist_ok=True)
        write_text(remembered, f"{source}\n")


def _require_quantizer(folder: Path, source: str) -> None:
    """Raise BaseModelError where a quantized base cannot be read here: a library or a GPU that it needs is missing."""
    from transformers import AutoConfig
    from transformers.quantizers.auto import get_hf_quantizer

    with quiet():
        try:
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
            auto_class(config)
            get_hf_quantizer(config, None, None, True, {})
        except Exception as error:
            raise BaseModelError(f"base-model {source!r} cannot be loaded: {reason(error)}") from error


def _key(folder: Path) -> str:
    """Changes with any of the files read, and with transformers' version."""
    from importlib.metadata import version

    files = [
        *require_whole(folder),
        *(folder / name for name in texts_read(file.name for file in folder.iterdir() if file.is_file())),
    ]
    stats = [[str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns] for file in files]
    return hashlib.sha256(json.dumps([version("transformers"), stats]).encode()).hexdigest()[:16]


def decoder(model: nn.Module) -> nn.Module:
    """The text decoder inside a causal LM: the module that has its blocks."""
    inner: Any = model
    while hasattr(inner, "get_decoder"):
        within = inner.get_decoder()
        if within is None or within is inner:
            break
        inner = within
    return inner


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The decoder blocks of a transformers causal LM, first to last: found by structure, in its text decoder.

    Raises:
        ValueError: the model has no list of as many blocks as its configuration says.
    """
    count = getattr(text_config(model.config), "num_hidden_layers", None)
    lists = [one for one in _outermost_lists(decoder(model)) if len(one) == count]
    if not lists:
        raise ValueError(f"{type(model).__name__} has no list of {count} decoder blocks to edit")
    if len(lists) == 1:  # as ever in a text model; this is asked before every pass
        return lists[0]
    return max(lists, key=lambda one: sum(p.numel() for p in one.parameters()))


def _outermost_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    """The lists of modules in a module that lie in no other list."""
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            yield child
        else:
            yield from _outermost_lists(child)


def text_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """(name, module) of all modules of the text model, in the model's order: no towers that see or hear."""
    if text_config(model.config) is model.config:
        yield from model.named_modules()
        return
    head = model.get_output_embeddings()  # type: ignore[operator]
    ours = {id(module) for module in decoder(model).modules()} | {id(head)}
    yield from ((name, module) for name, module in model.named_modules() if id(module) in ours)


def text_parameters(model: nn.Module) -> int:
    """Numbers in the text model, tied ones once."""
    parameters = {id(p): p.numel() for _, module in text_modules(model) for p in module.parameters(recurse=False)}
    return sum(parameters.values())
