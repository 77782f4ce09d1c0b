"""Tiny base models as files: folders, and GGUF files in one piece or in parts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

WIDTH, GATED, BLOCKS = 32, 48, 4


@pytest.fixture(scope="session")
def write_gguf() -> Callable[..., list[Path]]:
    """write_gguf(path, parts=2) -> a random Llama of four blocks as llama.cpp writes it, split by tensors."""

    def write(path: Path, *, parts: int = 1, seed: int = 0, leave_out: str = "") -> list[Path]:
        draw = np.random.default_rng(seed)
        tensors = {}
        for name, *shape in _shapes():
            tensor = (draw.standard_normal(shape) * 0.2 + (len(shape) == 1)).astype(np.float32)
            if not leave_out or leave_out not in name:
                tensors[name] = tensor
        names = sorted(tensors)
        files = (
            [path]
            if parts == 1
            else [path.with_name(f"{path.stem}-{part:05d}-of-{parts:05d}.gguf") for part in range(1, parts + 1)]
        )
        for part, file in enumerate(files):
            _write(file, {name: tensors[name] for name in names[part::parts]}, part, parts, len(names))
        return files

    return write


def _tokens() -> list[str]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return ["<|endoftext|>", *bytes_to_unicode().values(), "ab"]


def _shapes() -> list[tuple]:
    count = len(_tokens())
    shapes: list[tuple] = [("token_embd.weight", count, WIDTH), ("output_norm.weight", WIDTH)]
    shapes.append(("output.weight", count, WIDTH))
    for block in range(BLOCKS):
        shapes += [
            (f"blk.{block}.attn_norm.weight", WIDTH),
            (f"blk.{block}.ffn_norm.weight", WIDTH),
            (f"blk.{block}.attn_q.weight", WIDTH, WIDTH),
            (f"blk.{block}.attn_k.weight", WIDTH // 2, WIDTH),
            (f"blk.{block}.attn_v.weight", WIDTH // 2, WIDTH),
            (f"blk.{block}.attn_output.weight", WIDTH, WIDTH),
            (f"blk.{block}.ffn_gate.weight", GATED, WIDTH),
            (f"blk.{block}.ffn_up.weight", GATED, WIDTH),
            (f"blk.{block}.ffn_down.weight", WIDTH, GATED),
        ]
    return shapes


def _write(path: Path, tensors: dict[str, np.ndarray], part: int, parts: int, total: int) -> None:
    import gguf

    writer = gguf.GGUFWriter(str(path), "llama")
    if part == 0:
        tokens = _tokens()
        writer.add_name("tiny")
        writer.add_context_length(512)
        writer.add_embedding_length(WIDTH)
        writer.add_block_count(BLOCKS)
        writer.add_feed_forward_length(GATED)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-6)
        writer.add_rope_dimension_count(8)
        writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(len(tokens))
        writer.add_file_type(0)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_types([3] + [1] * (len(tokens) - 1))
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(0)
    if parts > 1:
        writer.add_uint16("split.no", part)
        writer.add_uint16("split.count", parts)
        writer.add_int32("split.tensors.count", total)
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def saved(tmp_path: Path, tiny_llama: Callable, tiny_tokenizer: Callable) -> Callable[..., Path]:
    """saved(shards=True) -> a tiny Llama and its tokenizer in a folder, its weights in several files."""

    def save(name: str = "tiny", *, shards: bool = False) -> Path:
        folder = tmp_path / name
        tiny_llama().save_pretrained(folder, max_shard_size="20KB" if shards else "1GB")
        tiny_tokenizer().save_pretrained(folder)
        return folder

    return save
