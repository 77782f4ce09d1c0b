"""Tiny random bases of the families that people bring, made on the spot: the smallest configuration that each takes.

Every family has the tests' tokenizer, one token a character, and ends a text at token 0.
"""

from __future__ import annotations

from typing import Any

import torch

from fed.base.model import BaseModel
from fed.base.random_base import VOCABULARY, tiny_tokenizer

_COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 6}
_VISION = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4,
    "num_attention_heads": 4, "image_size": 28, "patch_size": 14,
}  # fmt: skip
_HYBRID = ["linear_attention", "full_attention"] * 2

# family: what its configuration has beside `_COMMON`; None leaves a key of `_COMMON` out
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": {"sliding_window": 8}, "qwen2": {}, "qwen3": {"head_dim": 8},
    "gemma": {"head_dim": 8}, "gemma2": {"head_dim": 8, "sliding_window": 8}, "phi": {}, "phi3": {"sliding_window": 8},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "gemma3": {},  # nested, below
    "olmo2": {}, "granite": {}, "smollm3": {}, "cohere": {}, "stablelm": {}, "starcoder2": {"sliding_window": 8},
    "gpt2": {"n_positions": 512}, "gpt_neox": {}, "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32}, "bloom": {},
    "falcon": {}, "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": _EXPERTS | {"shared_expert_intermediate_size": 24},
    "deepseek_v3": _EXPERTS | _LATENT | {
        "num_key_value_heads": 4, "n_routed_experts": 4, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
        "n_shared_experts": 1,
    },
    "exaone4": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "glm4": {"head_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2, "block_ff_dim": 48},
    "gpt_oss": {"head_dim": 8, "sliding_window": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "mamba": {"state_size": 4},
    "qwen3_next": _EXPERTS | {
        "head_dim": 8, "layer_types": _HYBRID, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8, "shared_expert_intermediate_size": 24,
    },
}  # fmt: skip


def config_of(family: str) -> Any:
    """The family's tiny configuration."""
    from transformers import AutoConfig

    if family == "gemma3":  # the text model is one level down, beside a vision tower
        text = _COMMON | FAMILIES["gemma3_text"] | {"model_type": "gemma3_text"}
        nested = {"text_config": text, "vision_config": _VISION, "mm_tokens_per_image": 4}
        return AutoConfig.for_model(family, **nested, eos_token_id=0, pad_token_id=0)
    return AutoConfig.for_model(family, **_COMMON | FAMILIES[family])


def model_of(family: str, seed: int = 0) -> Any:
    """A model of the family whose answers depend on their context, in float32, frozen."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config_of(family), attn_implementation="eager")
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.dim() >= 2:
                parameter.normal_(std=0.25, generator=noise)
    return model.requires_grad_(False).eval()


def base_of(family: str, seed: int = 0) -> BaseModel:
    """The model with the tests' tokenizer, as a loaded base."""
    return BaseModel(family, model_of(family, seed), tiny_tokenizer(), "float32", "cpu", "0" * 16)
