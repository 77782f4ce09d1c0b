"""A GGUF file, in one piece or in parts: all of it, or one line that says what is missing.

Parts are named `NAME-00001-of-00003.gguf`, as llama.cpp's gguf-split writes them: the first has the configuration and
the vocabulary, each has some of the tensors. transformers reads one file, so parts are put together first.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fed.base.files.refusal import BaseModelError, reason
from fed.base.files.safetensors import refuse_pointer

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def parts_of(file: Path) -> list[Path]:
    """The file, or all the parts of which it is one, the first first. Raises BaseModelError where one is missing."""
    if not file.is_file():
        raise BaseModelError(f"base-model GGUF file must exist, but there is no {str(file)!r}")
    match = _PART.fullmatch(file.name)
    names = [file.name]
    if match:
        names = [f"{match[1]}-{number:05d}-of-{match[3]}.gguf" for number in range(1, int(match[3]) + 1)]
    missing = [name for name in names if not (file.parent / name).is_file()]
    if missing:
        raise BaseModelError(
            f"base-model GGUF file is one of {len(names)} parts, and {len(missing)} of them are not beside it, "
            f"{str(file.parent / missing[0])!r} among them; fetch the rest"
        )
    return [file.parent / name for name in names]


def require_whole(parts: list[Path]) -> list[Any]:
    """Readers of the parts, in which every tensor that the header promises is there to its last byte.

    Raises:
        BaseModelError: no GGUF, one that is cut short, a part under another name, or too few tensors or blocks.
    """
    readers = [_reader(part) for part in parts]
    first = readers[0]
    promised_parts = _number(first, "split.count") or 1
    if promised_parts != len(parts):
        raise BaseModelError(
            f"base-model GGUF file {str(parts[0])!r} is one of {promised_parts} parts; name them "
            f"NAME-00001-of-{promised_parts:05d}.gguf and so on, side by side, and give the first"
        )
    names = [tensor.name for reader in readers for tensor in reader.tensors]
    promised = _number(first, "split.tensors.count") or len(names)
    if len(set(names)) != promised:
        raise BaseModelError(
            f"base-model GGUF file {str(parts[0])!r} must hold {promised} tensors, got {len(set(names))}"
        )
    blocks = _number(first, f"{_text(first, 'general.architecture')}.block_count") or 0
    there = {int(name.split(".")[1]) for name in names if re.match(r"blk\.\d+\.", name)}
    if lacking := sorted(set(range(blocks)) - there):
        raise BaseModelError(
            f"base-model GGUF file {str(parts[0])!r} must hold {blocks} blocks, but it has no tensor of block "
            f"{lacking[0]}; fetch it again"
        )
    return readers


def join(readers: list[Any], target: Path) -> None:
    """Write the parts as one file: the first's keys, everybody's tensors as they are."""
    import gguf

    first = readers[0]
    writer = gguf.GGUFWriter(target, _text(first, "general.architecture"))
    for field in first.fields.values():
        if field.name.startswith(("GGUF.", "split.")) or field.name == "general.architecture":
            continue
        kind = field.types[0]
        within = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=within)
    tensors = [tensor for reader in readers for tensor in reader.tensors]
    for one in tensors:
        writer.add_tensor_info(one.name, one.data.shape, one.data.dtype, one.data.nbytes, one.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for one in tensors:
        writer.write_tensor_data(one.data)
    writer.close()


def _reader(file: Path) -> Any:
    import gguf  # here: a device that has its base dequantized need not spend the time

    refuse_pointer(file)
    try:
        return gguf.GGUFReader(file)
    except Exception as error:
        raise BaseModelError(
            f"base-model GGUF file must be whole, but {str(file)!r} is cut short or no GGUF ({reason(error)}); "
            f"fetch it again"
        ) from error


def _number(reader: Any, key: str) -> int | None:
    field = reader.get_field(key)
    return None if field is None else int(field.contents())


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    return "" if field is None else str(field.contents())
