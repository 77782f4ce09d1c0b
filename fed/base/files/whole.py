"""A base model's folder is whole or refused: by its files' names and headers, without loading anything.

What is read: `config.json`, `generation_config.json`, `model.safetensors` or all the parts that
`model.safetensors.index.json` names, and the tokenizer's files. Anything else in a folder is left alone: another
format's weights, duplicates, and pickled weights, which are never opened.

Promise: the check before a run and the load refuse the same folders, by this one function
(`tests/fed/base/files/test_whole.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fed.base.files.refusal import BaseModelError
from fed.base.files.safetensors import entries, refuse_pointer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
CONFIGS = ("config.json", "generation_config.json")
# Any one of these sets is a vocabulary; the rest only adds to it.
VOCABULARIES = (
    ("tokenizer.json",),
    ("tokenizer.model",),
    ("spiece.model",),
    ("sentencepiece.bpe.model",),
    ("tekken.json",),
    ("vocab.json", "merges.txt"),
    ("vocab.txt",),
)
BESIDE = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)
_PART = re.compile(r".+-(\d{5})-of-(\d{5})\.safetensors")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def require_whole(folder: Path) -> list[Path]:
    """The weight files of a base model's folder, in which nothing is missing.

    Raises:
        BaseModelError: no configuration, no tokenizer, or not all of the weights.
    """
    if not (folder / "config.json").is_file():
        other = _other_kind(folder)
        raise BaseModelError(f"base-model folder must hold a config.json, but {str(folder)!r} has none{other}")
    _json(folder / "config.json")
    files = weight_files(folder)
    tensors = {file.name: entries(file) for file in files}
    for name, file in _weight_map(folder).items() if (folder / INDEX).is_file() and files[0].name != WEIGHTS else ():
        if name not in tensors[file]:
            raise BaseModelError(
                f"base-model's weights must be whole, but {str(folder / file)!r} lacks {name!r}, "
                f"which {INDEX} says it has; fetch it again"
            )
    _require_tokenizer(folder)
    return files


def weight_files(folder: Path) -> list[Path]:
    """The files that the weights are read from, as transformers picks them; all are there. Raises BaseModelError."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        raise BaseModelError(_no_weights(folder))
    names = sorted(set(_weight_map(folder).values()))
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise BaseModelError(
            f"base-model's weights must be whole, but {str(folder)!r} lacks {len(missing)} of {len(names)} files, "
            f"{missing[0]!r} among them; fetch the rest"
        )
    return [folder / name for name in names]


def texts_read(names: Iterable[str]) -> list[str]:
    """Of the names in a folder or repository, the configurations and the tokenizer's files that are read, sorted."""
    known = {*CONFIGS, *BESIDE, *(name for names in VOCABULARIES for name in names)}
    return sorted(name for name in names if name in known or (name.endswith(".tiktoken") and "/" not in name))


def weights_read(names: list[str], index: Callable[[], Path]) -> list[str]:
    """Of the names in a repository, the weight files that are read. `index` gets its index file here."""
    if WEIGHTS in names:
        return [WEIGHTS]
    if INDEX in names:
        return [INDEX, *sorted(set(_weight_map(index().parent).values()))]
    return []


def _weight_map(folder: Path) -> dict[str, str]:
    found = _json(folder / INDEX).get("weight_map")
    right = isinstance(found, dict) and all(isinstance(v, str) and Path(v).name == v for v in found.values())
    if not found or not right:
        raise BaseModelError(
            f"base-model's {INDEX} must map weights to files beside it, and {str(folder)!r}'s does not"
        )
    return dict(found)


def _json(file: Path) -> dict[str, Any]:
    refuse_pointer(file)
    try:
        read = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise BaseModelError(f"base-model's {file.name} must be JSON, and {str(file)!r} is not ({error})") from error
    if not isinstance(read, dict):
        raise BaseModelError(f"base-model's {file.name} must be a JSON object, and {str(file)!r} is none")
    return read


def _require_tokenizer(folder: Path) -> None:
    """A vocabulary of its own: transformers would else make one up, and every text become the same few tokens."""
    sets = [*VOCABULARIES, *((file.name,) for file in sorted(folder.glob("*.tiktoken")))]
    there = [names for names in sets if all((folder / name).is_file() for name in names)]
    if not there:
        wanted = ", ".join(" with ".join(names) for names in VOCABULARIES)
        some = [name for names in sets for name in names if (folder / name).is_file()]
        has = f"it has {some[0]} alone" if some else "it has none"
        raise BaseModelError(f"base-model folder must hold a tokenizer ({wanted}), but {str(folder)!r}: {has}")
    for name in {name for names in there for name in names} | {n for n in BESIDE if (folder / n).is_file()}:
        refuse_pointer(folder / name)
        if name.endswith(".json") and not _end(folder / name).endswith(b"}"):
            raise BaseModelError(
                f"base-model's tokenizer must be whole, but {str(folder / name)!r} is cut short; fetch it"
            )


def _end(file: Path) -> bytes:
    """A file's last bytes, without white space: the whole of a vocabulary need not be parsed to see that it ends."""
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - 64))
        return opened.read().rstrip()


def _no_weights(folder: Path) -> str:
    parts = [match for file in sorted(folder.glob("*.safetensors")) if (match := _PART.fullmatch(file.name))]
    if parts:
        return (
            f"base-model's weights in parts need {INDEX}, which says where each lies, but {str(folder)!r} has "
            f"{len(parts)} of {int(parts[0][2])} parts and no index; fetch it"
        )
    return f"base-model folder must hold {WEIGHTS} or {INDEX}, but {str(folder)!r} has neither{_other_kind(folder)}"


def _other_kind(folder: Path) -> str:
    """What the folder has instead, and what to do about it."""
    if (folder / "adapter_config.json").is_file():
        return "; it holds an adapter: give the base that it was trained on, or merge the two"
    if quantized := sorted(folder.glob("*.gguf")):
        return f"; it holds a GGUF file: give {str(quantized[0])!r}"
    if any(file for kind in _PICKLED for file in folder.glob(kind)):
        return "; pickled weights (.bin, .pt) are never read, for they can run code: convert them to safetensors"
    if other := sorted(folder.glob("*.safetensors")):
        return f"; {other[0].name!r} is a name that transformers does not read: rename it {WEIGHTS}"
    if any(folder.glob("*.incomplete")):
        return "; its download was not finished: fetch it again"
    return "; fetch the whole model"
