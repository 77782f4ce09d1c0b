"""A GGUF file as a folder of bf16 safetensors in the cache, from which later loads take about a second."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fed.base.files import gguf
from fed.base.files.cache import making, sample
from fed.base.files.quiet import quiet
from fed.base.files.refusal import BaseModelError, reason
from fed.cache import cache_home


def dequantized(file: Path) -> Path:
    """The cache folder of a GGUF file or of all its parts; made on first use, once a host, and by rename.

    Raises:
        BaseModelError: a part is missing, the file is cut short, or transformers cannot read it whole.
    """
    parts = gguf.parts_of(file)
    first = parts[0]
    # transformers 4 silently misreads rope_parameters written by 5, so the major version is part of the key. It is
    # not imported for that: greeting the server needs no more of it.
    major = version("transformers").split(".")[0]
    digest = hashlib.sha256(f"{first.name}:v{major}:".encode())
    for part in parts:
        digest.update(sample(part))
    folder = cache_home() / "base" / f"{first.stem}-{digest.hexdigest()[:12]}"
    if (folder / "config.json").is_file():
        return folder
    readers = gguf.require_whole(parts)
    with making(folder.parent):
        if not (folder / "config.json").is_file():
            _make(parts, readers, folder)
    return folder


def _make(parts: Sequence[Path], readers: list[Any], folder: Path) -> None:
    first = parts[0]
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
    try:
        if len(parts) > 1:
            joined = building / "joined.gguf"
            gguf.join(readers, joined)
            _write(joined, first, building)
            joined.unlink()
        else:
            _write(first, first, building)
        building.chmod(0o755)
        try:
            building.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _write(file: Path, named: Path, folder: Path) -> None:
    """Save what transformers reads of a GGUF file, weights and tokenizer, in bf16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        try:
            where: dict[str, Any] = {"gguf_file": file.name, "trust_remote_code": False, "local_files_only": True}
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(file.parent), dtype=torch.bfloat16, output_loading_info=True, **where
            )
            read, loading = loaded
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **where)
        except Exception as error:
            raise BaseModelError(f"base-model GGUF file {str(named)!r} cannot be read: {reason(error)}") from error
        if lacking := sorted(loading["missing_keys"]):
            raise BaseModelError(
                f"base-model GGUF file {str(named)!r} lacks {len(lacking)} weights, {lacking[0]} among them; "
                f"fetch it again"
            )
        config = read.config
        if hasattr(config, "quantization_config"):
            del config.quantization_config  # the dequantized model refuses save_pretrained with it
        fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
        fresh.load_state_dict(read.state_dict())
        fresh.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
