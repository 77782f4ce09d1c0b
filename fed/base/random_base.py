"""Bases of random weights: the tiny one of tests and of runs with many users, and published shapes to time.

    random:tiny          4 blocks, d = 32, one token a character: what surrounds a model, without the model
    random:llama-2-7b    … and the other presets of `fed.base.skeleton`, made on the device in the dtype asked for

What such a base answers is noise. Timings do not care: a product of random numbers takes as long as any.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

from fed.base import gpu_kernels, sources
from fed.base.architecture import grouped_attention
from fed.base.device import DTYPES, choose_device, choose_dtype
from fed.base.model import BaseModel
from fed.base.skeleton import PRESETS
from fed.base.sources import BaseModelError

PREFIX = "random:"
CHARACTERS = "\n" + string.ascii_letters + string.digits + string.punctuation + " "
EOS = "</s>"
HIDDEN, LAYERS, VOCABULARY = 32, 4, 3 + len(CHARACTERS)


def load(source: str, *, device: str = "auto", dtype: str = "auto") -> BaseModel:
    """`random:NAME` frozen, with a tokenizer of real text. Raises BaseModelError for a name that is not known."""
    name = source.removeprefix(PREFIX)
    if name != "tiny" and name not in PRESETS:
        raise BaseModelError(f"a random base must be random:tiny or one of {', '.join(PRESETS)}, got {source!r}")
    chosen = choose_device(device)
    kind = choose_dtype(dtype, chosen)
    if name == "tiny":
        model: Any = tiny_llama().to(device=chosen, dtype=DTYPES[kind])
        tokenizer = tiny_tokenizer()
    else:
        model, tokenizer = _shaped(name, chosen, DTYPES[kind]), _text_tokenizer(PRESETS[name]["vocab_size"])
    model.requires_grad_(False).eval()
    gpu_kernels.fused(model, chosen)
    grouped_attention.use(model)
    return BaseModel(f"{name} of random weights", model, tokenizer, kind, chosen, "0" * 16)


def _shaped(name: str, device: str, dtype: torch.dtype) -> Any:
    """A model of published shapes whose weights are drawn where they stay: nothing is copied to the device."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    attention = "eager" if device == "cpu" else "sdpa"  # as `base_model.load`
    config = AutoConfig.for_model(**PRESETS[name])
    with torch.device(device):
        return AutoModelForCausalLM.from_config(
            config, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )


def _text_tokenizer(vocabulary: int) -> Any:
    """The embedded base's, for text of ordinary lengths; its rarer tokens must not lie beyond a smaller vocabulary.

    Where that base is not here, the tiny one's: a token a character.
    """
    from transformers import AutoTokenizer

    try:
        folder = sources.resolve(sources.EMBEDDED)[1]
    except BaseModelError:
        return tiny_tokenizer()
    return _Within(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), vocabulary)


class _Within:
    """A tokenizer whose ids are taken modulo a vocabulary's size; enough to tokenize, and to decode noise."""

    def __init__(self, tokenizer: Any, vocabulary: int) -> None:
        self._tokenizer, self._vocabulary = tokenizer, vocabulary

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, text: str, **options: Any) -> dict[str, Any]:
        coded = dict(self._tokenizer(text, **options))
        return coded | {"input_ids": [i % self._vocabulary for i in coded["input_ids"]]}


def tiny_tokenizer(**special: str) -> Any:
    """One token a character, so that a text of n characters is n tokens; the pad token is EOS unless said."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {text: number for number, text in enumerate([EOS, "<pad>", "<unk>", *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    special = {"eos_token": EOS, "pad_token": EOS, "unk_token": "<unk>"} | special
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **special)


def tiny_llama(seed: int = 0, **changes: Any) -> Any:
    """A random Llama whose answers depend on their context, and which ends a text now and then."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{
            "hidden_size": HIDDEN,
            "intermediate_size": 48,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 512,
            "bos_token_id": None,
            "eos_token_id": 0,
            "pad_token_id": 0,
            "attn_implementation": "eager",
        }
        | changes
    )
    model = LlamaForCausalLM(config)
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.dim() == 2:
                parameter.normal_(std=0.25, generator=noise)
                if name == "lm_head.weight":
                    parameter[0] *= 2.5  # the end of a text
    return model


def save_tiny(folder: Path) -> None:
    """The tiny base in a folder, as a user would have a base model."""
    tiny_llama().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
