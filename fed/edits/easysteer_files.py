"""A user's edits as EasySteer reads them, which serves LoReFT in vLLM (arXiv 2509.25175); neither is needed here.

    steering.json                   the edits in the order of composition, each with the tokens that it applies to
    block-<l>-stage-<s>/config.json, intkey_….bin         one edit of one block: a folder that pyreft 0.1.0 saved

EasySteer's `from_pyreft` takes one intervention a folder, with one file of weights; a PerFit edit is therefore a folder
for each block and stage, composed with `conflict = "sequential"`: what a later one reads is what an earlier one wrote,
as in equation 2. Which tokens an edit applies to is its `apply`, EasySteer's `ApplySpec`, in steering.json and under
`easysteer_training` of each config.json. Positions count from BOS on, as here.

    all-f1    prompt = "all", generation = "all", exclude_prompt_positions = [0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fed.edits.positions import Positions
from fed.edits.pyreft_files import ABOUT, PlacedEdit, in_order, new_folder, write_interventions, write_json

STEERING = "steering.json"


def write(
    folder: Path, edits: Sequence[PlacedEdit], positions: Sequence[Positions], about: Mapping[str, Any] | None = None
) -> None:
    """Write edits, in the order of composition, into a new folder that only its owner can read.

    Args:
        edits: as for `pyreft_files.write`.
        positions: which tokens each of them edits.
        about: what `perfit.json` says; None: no such file.
    Raises:
        FileExistsError: the folder exists. OSError: it cannot be written.
    """
    with new_folder(folder) as building:
        vectors = []
        applies = [apply_of(where) for _, where in zip(edits, positions, strict=True)]
        for block, number, tensors in in_order(edits):
            payload = building / f"block-{block:02}-stage-{number + 1}"
            payload.mkdir()
            extra = {"easysteer_training": {"act_fn": "linear", "apply": applies[number]}}
            write_interventions(payload, [(block, 0, tensors)], extra)
            vectors.append(
                {"payload": payload.name, "algorithm": "loreft", "layers": [block], "apply": applies[number]}
            )
        write_json(building / STEERING, {"conflict": "sequential", "vectors": vectors})
        if about is not None:
            write_json(building / ABOUT, about)


def apply_of(positions: Positions) -> dict[str, Any]:
    """The tokens that a rule names, as EasySteer's `ApplySpec` says them.

    Its selectors are united and its exclusions subtracted; windows are half-open, and count from the prompt's end where
    they are negative. A position past a short prompt's end would mean its last token there, a window would not.
    """
    first_alone: dict[str, Any] = {"exclude_prompt_positions": [0]}
    if positions.everywhere or positions.first is None:
        apply: dict[str, Any] = {"prompt": "all"}
        if positions.everywhere:
            apply["generation"] = "all"
        if positions.skipped == 1:
            apply |= first_alone
        elif positions.skipped:
            apply["exclude_prompt_window"] = [0, positions.skipped]
        return apply
    apply = {"generation": "all"} if positions.generated else {}
    if positions.last and positions.first:
        # Past a short prompt's end lies its last token, which `last` names anyway.
        apply |= {"prompt_positions": list(range(positions.first)), "prompt_window": [-positions.last, None]}
    elif positions.last:
        apply |= {"prompt_window": [-positions.last, None], **first_alone}
    else:
        apply["prompt_window"] = [0, positions.first]
    return apply
