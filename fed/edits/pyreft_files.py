"""A user's edits as files that pyreft 0.1.0 loads: `ReftModel.load(folder, model)`; pyreft is not needed to write them.

    config.json                                                pyvene's IntervenableConfig, one representation an edit
    intkey_layer_<l>_comp_block_output_unit_pos_nunit_1#<s>.bin   weight W (r, d), bias b (r), rotate_layer Rᵀ (d, r)

The s-th stage that edits a layer is its representation #s, and pyvene applies them in that order. pyreft keeps W and b
in bfloat16 unless told otherwise, so after `load` they are rounded; the files hold float32 (see `clients/README.md`).
Which tokens are edited is not in the files: pyreft takes that with every call (`unit_locations`).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

_FIELDS_AFTER_RANK = 9  # of pyvene's RepresentationConfig, all unused


def write(folder: Path, stages: Sequence[tuple[Sequence[int], Mapping[str, Tensor]]]) -> None:
    """Write the edits of all stages, in order, into a new folder that only its owner can read.

    Args:
        stages: per stage its layers, and R, W (L, r, d) and b (L, r), float32.
    Raises:
        FileExistsError: the folder exists. OSError: it cannot be written.
    """
    if folder.exists():
        raise FileExistsError(f"the folder must not exist yet, and {str(folder)!r} does")
    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".building-"))  # mode 0700
    try:
        keys, representations, widths = [], [], []
        for layer in sorted({layer for layers, _ in stages for layer in layers}):
            of_layer = [(tensors, list(layers).index(layer)) for layers, tensors in stages if layer in layers]
            for number, (tensors, place) in enumerate(of_layer):
                R, W, b = (tensors[name][place].detach().cpu() for name in ("R", "W", "b"))
                keys.append(f"layer_{layer}_comp_block_output_unit_pos_nunit_1#{number}")
                unused = [None] * _FIELDS_AFTER_RANK
                representations.append([layer, "block_output", "pos", 1, R.shape[0], *unused])
                widths.append(R.shape[1])
                state = OrderedDict(weight=W.clone(), bias=b.clone(), rotate_layer=R.mT.contiguous())
                torch.save(state, building / f"intkey_{keys[-1]}.bin")
        config = {
            "intervention_constant_sources": [True] * len(keys),
            "intervention_dimensions": widths,
            "intervention_types": ["<class 'pyreft.interventions.LoreftIntervention'>"] * len(keys),
            "mode": "parallel",
            "representations": representations,
            "sorted_keys": keys,
        }
        (building / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        for path in building.iterdir():
            path.chmod(0o600)
        os.rename(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
