"""A user's edits as files that pyreft 0.1.0 loads: `ReftModel.load(folder, model)`; pyreft is not needed to write them.

    config.json                                                pyvene's IntervenableConfig, one representation an edit
    intkey_layer_<l>_comp_block_output_unit_pos_nunit_1#<s>.bin   weight W (r, d), bias b (r), rotate_layer Rᵀ (d, r)

The s-th edit of a block is its representation #s, and pyvene applies them in that order. pyreft keeps W and b
in bfloat16 unless told otherwise, so after `load` they are rounded; the files hold float32 (see `clients/README.md`).
Which tokens are edited is not in these: pyreft takes that with every call (`unit_locations`). `perfit.json` says it,
with what else a caller must know.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_FIELDS_AFTER_RANK = 9  # of pyvene's RepresentationConfig, all unused
_TYPE = "<class 'pyreft.interventions.LoreftIntervention'>"
ABOUT = "perfit.json"

PlacedEdit = tuple[Sequence[int], Mapping[str, Tensor]]  # its blocks; R, W (L, r, d) and b (L, r), float32


def write(folder: Path, edits: Sequence[PlacedEdit], about: Mapping[str, Any] | None = None) -> None:
    """Write edits, in the order of composition, into a new folder that only its owner can read.

    Args:
        edits: of each its blocks, and R, W (L, r, d) and b (L, r), float32.
        about: what `perfit.json` says; None: no such file.
    Raises:
        FileExistsError: the folder exists. OSError: it cannot be written.
    """
    with new_folder(folder) as building:
        before: Counter[int] = Counter()  # how many edits of a block come before this one
        interventions = []
        for block, _, tensors in in_order(edits):
            interventions.append((block, before[block], tensors))
            before[block] += 1
        write_interventions(building, interventions)
        if about is not None:
            write_json(building / ABOUT, about)


def in_order(edits: Sequence[PlacedEdit]) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
    """(block, place of its edit from 0, R and W (r, d) and b (r)) block by block, in the order of application."""
    for block in sorted({block for blocks, _ in edits for block in blocks}):
        for number, (blocks, tensors) in enumerate(edits):
            if block in blocks:
                place = list(blocks).index(block)
                yield block, number, {name: tensors[name][place] for name in ("R", "W", "b")}


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into, which takes its name once it is whole; its files are the owner's alone.

    Raises:
        FileExistsError: the folder exists. OSError: it cannot be written.
    """
    if folder.exists():
        raise FileExistsError(f"the folder must not exist yet, and {str(folder)!r} does")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))  # mode 0700
    try:
        yield building
        for path in building.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        os.rename(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def write_interventions(
    folder: Path, interventions: Sequence[tuple[int, int, Mapping[str, Tensor]]], extra: Mapping[str, Any] | None = None
) -> None:
    """Write pyvene's configuration and a file of weights for each intervention.

    Args:
        interventions: (block, which edit of that block it is, R and W (r, d) and b (r)), in the order of application.
        extra: entries of config.json besides pyvene's own.
    """
    keys, representations, widths = [], [], []
    for block, number, tensors in interventions:
        R, W, b = (tensors[name].detach().cpu() for name in ("R", "W", "b"))
        keys.append(f"layer_{block}_comp_block_output_unit_pos_nunit_1#{number}")
        representations.append([block, "block_output", "pos", 1, R.shape[0], *[None] * _FIELDS_AFTER_RANK])
        widths.append(R.shape[1])
        state = OrderedDict(weight=W.clone(), bias=b.clone(), rotate_layer=R.mT.contiguous())
        torch.save(state, folder / f"intkey_{keys[-1]}.bin")
    config = {
        "intervention_constant_sources": [True] * len(keys),
        "intervention_dimensions": widths,
        "intervention_types": [_TYPE] * len(keys),
        "mode": "parallel",
        "representations": representations,
        "sorted_keys": keys,
    }
    write_json(folder / "config.json", {**config, **(extra or {})})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
