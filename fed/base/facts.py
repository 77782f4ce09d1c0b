"""What is known of a base model without loading it: a device greets the server and takes an edit by these alone.

The first load leaves them in the cache folder, under the fingerprint of the weights; a message that trains nothing then
costs neither transformers' model code nor the weights (about half of such a message's time on a small base).
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fed.atomic_write import write_text
from fed.base import sources
from fed.base.architecture.text_model import read_tokenizer
from fed.base.device import choose_device, choose_dtype
from fed.base.model import BaseModel, load
from fed.base.skeleton import Skeleton, context_of, skeleton
from fed.base.sources import BaseModelError
from fed.base.tokens.chat_template import ChatTemplate


@dataclass(frozen=True)
class Facts:
    """description: as `BaseModel.describe`. skeleton: the shapes."""

    description: dict[str, Any]
    fingerprint: str
    skeleton: Skeleton


def here(source: str) -> tuple[str | None, Skeleton] | None:
    """(fingerprint, shapes) of a base model that this machine has, without loading it, fetching it or making a cache.

    None where it has none, or a GGUF file. Of `embedded` the shapes are known, and no fingerprint.
    """
    try:
        folder = sources.local(source)
        if folder is None:
            return (None, skeleton(source)) if source == sources.EMBEDDED else None
        fingerprint = sources.fingerprint(folder)
        for path in sorted((sources.cache_home() / "facts").glob(f"{fingerprint}-*.json")):
            with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
                return fingerprint, _skeleton(json.loads(path.read_text(encoding="utf-8"))["skeleton"])
        return fingerprint, skeleton(str(folder))
    except (OSError, ValueError):
        return None


def _skeleton(shapes: dict[str, Any]) -> Skeleton:
    """As `asdict` made it. Raises KeyError or TypeError for anything else."""
    linears = tuple((str(name), int(outputs), int(inputs)) for name, outputs, inputs in shapes["linears"])
    return Skeleton(**{**shapes, "linears": linears})


def facts(source: str, *, device: str = "auto", dtype: str = "auto") -> Facts:
    """A base model's facts, remembered or by loading it. Raises BaseModelError."""
    chosen = choose_device(device)
    kind = choose_dtype(dtype, chosen)
    name, folder = sources.resolve(source)
    fingerprint = sources.fingerprint(Path(folder))
    path = sources.cache_home() / "facts" / f"{fingerprint}-{chosen.replace(':', '-')}-{kind}.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return Facts(known["description"] | {"name": name}, fingerprint, _skeleton(known["skeleton"] | {"name": name}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # never loaded here, or written by another version
    found = of(load(source, device=device, dtype=dtype))
    with suppress(OSError):  # a cache that cannot be written costs time, no more
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(asdict(found)))
    return found


def check_length(max_length: int, context: int | None) -> None:
    """Raise BaseModelError where rows of so many tokens are longer than the base reads at once (None: any length)."""
    if context is not None and max_length > context:
        raise BaseModelError(
            f"max-length must lie within the base model's context of {context} tokens, got {max_length}; set "
            f"max-length={context} or less, or give another base-model"
        )


def check(base: BaseModel, max_length: int, prompt_format: str) -> BaseModel:
    """The base itself. Raises ValueError, in one line, where it cannot read such rows."""
    check_length(max_length, base.context)
    if prompt_format == "chat":
        ChatTemplate.of(base.tokenizer)
    return base


def check_files(source: str, max_length: int, prompt_format: str) -> None:
    """The same by the files of the base at `source`, whose weights are not loaded."""
    folder = Path(sources.resolve(source)[1])
    check_length(max_length, context_of(_json(folder / "config.json")))
    if prompt_format == "chat":
        ChatTemplate.of(read_tokenizer(folder, source))


def _json(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8-sig"))) if file.is_file() else {}


def of(base: BaseModel) -> Facts:
    """The facts of a loaded base model."""
    return Facts(base.describe(), base.fingerprint, base.skeleton)
