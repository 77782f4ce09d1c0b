"""A hub id's folder: exactly the files that are read, fetched once, resumed where a fetch broke off.

Exactly: the configuration, `model.safetensors` or the parts that its index names, the tokenizer's files; not the same
weights in another format or precision, no originals, no code. What is in the hub's cache and whole needs no network.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from fed.base.files.refusal import BaseModelError
from fed.base.files.whole import require_whole, texts_read, weights_read


def folder_of(source: str) -> Path:
    """The local folder of a hub id, whole.

    Raises:
        BaseModelError: no such id, the hub cannot be reached and the cache has not all, or what the hub has is no base.
    """
    _require_id(source)
    partial = None
    try:
        if (here := cached(source)) is not None:
            return here
    except BaseModelError as error:
        partial = error
    try:
        fetched = _fetch(source)
    except BaseModelError:
        raise
    except Exception as error:  # no network, no such id, no right to read it
        kind = type(error).__name__
        if partial is not None:
            raise BaseModelError(f"{partial}; it is the hub's cache, and the hub cannot be reached ({kind})") from error
        raise BaseModelError(
            f"base-model {source!r} is neither a folder here nor reachable on the model hub "
            f"({kind}); give a folder, a GGUF file or 'embedded'"
        ) from error
    require_whole(fetched)
    return fetched


def cached(source: str) -> Path | None:
    """A hub id's folder in the hub's cache; None where it has no configuration of it.

    Raises:
        BaseModelError: the folder is not whole, or `source` is no hub id.
    """
    from huggingface_hub import try_to_load_from_cache

    _require_id(source)
    config = try_to_load_from_cache(source, "config.json")
    if not isinstance(config, str):
        return None
    require_whole(Path(config).parent)
    return Path(config).parent


def _require_id(source: str) -> None:
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(source)
    except HFValidationError as error:
        raise BaseModelError(f"base-model must be a hub id, a folder or a GGUF file, got {source!r}") from error


def names_read(names: list[str], index: Any) -> list[str]:
    """Of the names in a repository, those that are read; empty where it has no safetensors weights.

    Args:
        index: () -> Path, fetches the index of weights in parts.
    """
    weights = weights_read(names, index)
    return weights and sorted({*weights, *texts_read(names)})


def _fetch(source: str) -> Path:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    info = HfApi().model_info(source, files_metadata=True, timeout=10)
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = names_read(list(sizes), lambda: Path(hf_hub_download(source, "model.safetensors.index.json")))
    if not wanted:
        ggufs = [name for name in sizes if name.endswith(".gguf")]
        fix = f"fetch {ggufs[0]!r} and give that file" if ggufs else "pickled weights are never read: convert them"
        raise BaseModelError(f"base-model must have safetensors weights, and {source!r} on the hub has none; {fix}")
    total = sum(sizes.get(name, 0) for name in wanted)
    print(f"fetching {source}: {len(wanted)} files, {total / 1e6:,.1f} MB in all", file=sys.stderr, flush=True)
    return Path(snapshot_download(source, allow_patterns=wanted, etag_timeout=5))  # its bars show how far it is
