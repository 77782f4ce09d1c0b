"""A base model's shapes without its weights: the decoder built on torch's meta device from its configuration alone.

Sources: a bundled preset, a folder with a config.json, a GGUF file, or a hub id. The presets hold only what fixes the
shapes (no rotary scaling, no dropout), so they count parameters and are of no use for loading weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fed.base import sources
from fed.base.architecture import text_model
from fed.base.files.refusal import BaseModelError, reason

# name: (model_type, hidden, MLP, blocks, heads, key/value heads, vocabulary, whether embeddings are tied)
_SHAPES: dict[str, tuple[str, int, int, int, int, int, int, bool]] = {
    "llama-2-7b": ("llama", 4096, 11008, 32, 32, 32, 32_000, False),  # 6,738,415,616 parameters
    "llama-3.2-1b": ("llama", 2048, 8192, 16, 32, 8, 128_256, True),  # 1,235,814,400
    "mistral-7b": ("mistral", 4096, 14336, 32, 32, 8, 32_000, False),  # 7,241,732,096
    "qwen2.5-0.5b": ("qwen2", 896, 4864, 24, 14, 2, 151_936, True),  # 494,032,768
    "smollm2-135m": ("llama", 576, 1536, 30, 9, 3, 49_152, True),  # 134,515,008; base_model's `embedded`
}
_FIELDS = (
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "tie_word_embeddings",
)
PRESETS: Mapping[str, dict[str, Any]] = {
    name: dict(zip(_FIELDS, shape, strict=True)) for name, shape in _SHAPES.items()
}

# What configurations call the longest text: most models, GPT-2, MPT, GPT-J and their kin, the oldest.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")


def context_of(config: Mapping[str, Any]) -> int | None:
    """How many tokens a model reads at once, by its config.json; None where that names no limit.

    Of a model of several parts, the one that reads texts.
    """
    nested = config.get("text_config")
    for part in (nested if isinstance(nested, dict) else {}, config):
        for key in _CONTEXT:
            if isinstance(part.get(key), int) and part[key] > 0:
                return int(part[key])
    return None


class SkeletonError(ValueError):
    """No configuration at the source, or one that transformers cannot make a causal LM of."""


@dataclass(frozen=True)
class Skeleton:
    """A base model as shapes.

    Attributes:
        parameters: numbers in the text model, tied ones once.
        hidden_size: width d of the residual stream.
        layers: blocks.
        linears: (module name, outputs, inputs) of every nn.Linear, in the model's order.
    """

    name: str
    parameters: int
    hidden_size: int
    layers: int
    linears: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, name: str, model: nn.Module) -> Skeleton:
        """The shapes of a transformers causal LM, with weights or on the meta device."""
        text = text_model.text_config(model.config)
        linears = tuple(
            (module_name, module.out_features, module.in_features)
            for module_name, module in text_model.text_modules(model)
            if isinstance(module, nn.Linear)
        )
        parameters = text_model.text_parameters(model)
        return cls(name, parameters, int(text.hidden_size), int(text.num_hidden_layers), linears)

    def named(self, *suffixes: str) -> list[tuple[str, int, int]]:
        """The Linears whose last name is one of `suffixes`, as PEFT picks its target modules.

        Raises:
            SkeletonError: a suffix that no Linear has (fused projections, GPT-2's Conv1D).
        """
        for suffix in suffixes:
            if not any(name.rpartition(".")[2] == suffix for name, _, _ in self.linears):
                raise SkeletonError(f"{self.name} has no Linear named {suffix!r}, so LoRA cannot target it")
        return [linear for linear in self.linears if linear[0].rpartition(".")[2] in suffixes]


@lru_cache(maxsize=16)
def skeleton(source: str) -> Skeleton:
    """The shapes of a preset, a folder with a config.json, a GGUF file, or a hub id; no weights are read or made.

    But for a GGUF file, which is dequantized where that was not done before, as the run would do it.

    Raises:
        SkeletonError: one line with the value, the rule and the fix.
        BaseModelError: the same, of a GGUF file that is not there or not whole.
    """
    from transformers import AutoConfig  # here: seconds that a device need not spend

    preset = "smollm2-135m" if source == "embedded" else source
    try:
        if preset in PRESETS:
            config = AutoConfig.for_model(**PRESETS[preset])
        else:
            config = AutoConfig.from_pretrained(_folder(source), trust_remote_code=False, local_files_only=True)
        with torch.device("meta"):
            model = text_model.auto_class(config).from_config(config, trust_remote_code=False)
        name = preset if preset in PRESETS else Path(source).name if Path(source).exists() else source
        return Skeleton.of(name, model)
    except (SkeletonError, BaseModelError):
        raise
    except Exception as error:
        raise SkeletonError(f"model {source!r} is no causal LM that transformers can build: {reason(error)}") from error


def _folder(source: str) -> str:
    if source and (Path(source) / "config.json").is_file():
        return source
    if source.endswith(".gguf"):
        return sources.resolve(source)[1]
    rule = (
        f"model must be one of {', '.join(PRESETS)}, a folder with a config.json, a GGUF file, or a hub id, "
        f"got {source!r}"
    )
    if not source or Path(source).exists() or source.count("/") > 1 or source.startswith((".", "/", "~")):
        raise SkeletonError(rule)
    from huggingface_hub import snapshot_download

    found = ""
    for here in (True, False):  # what is cached first, so that no network is needed for it
        try:
            found = snapshot_download(source, allow_patterns=["config.json"], local_files_only=here, etag_timeout=5)
        except Exception as error:
            if not here:
                raise SkeletonError(f"{rule}, which the hub did not give ({type(error).__name__})") from error
        if (Path(found) / "config.json").is_file():
            return found
    raise SkeletonError(f"{rule}, which has no config.json")
