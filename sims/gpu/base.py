"""A random base of published shapes in a folder, for what loads a base by itself.

python -m gpu.base llama-2-7b FOLDER cuda       in bf16 where the device has it; 14 GB
"""

from __future__ import annotations

import sys
from pathlib import Path

from fed.base import random_base
from fed.base.device import choose_device, choose_dtype


def make(name: str, folder: Path, device: str) -> None:
    """Raises BaseModelError for a name that is not known."""
    if name == "tiny":
        random_base.save_tiny(folder)
        return
    kind = choose_dtype("auto", choose_device(device))
    made = random_base.load(f"{random_base.PREFIX}{name}", device=device, dtype=kind)
    made.model.save_pretrained(folder)
    random_base.tiny_tokenizer().save_pretrained(folder)  # the timed rows' own may have more tokens than the base


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
    print(f"{sys.argv[1]} in {sys.argv[2]}")
