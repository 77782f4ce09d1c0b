"""What a method's trained tensors are as edits that other software takes: LoReFT at its blocks and tokens, in order.

    perfit          the collective edit, then the user's own
    perfit-stage1   the collective edit alone
    reft-p, -cp     the user's own alone
    fedreft         the user's own, which took the collective one's place; without one, the collective edit

which each says itself (`Method.loreft`). Of a run's collective edit alone, whatever the method, the first is
exported. LoRA and StyleVector are no LoReFT.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fed.edits import easysteer_files, pyreft_files
from fed.edits.loreft import EditShape
from fed.edits.positions import Positions
from fed.methods import class_of
from fed.settings.methods import METHODS
from fed.settings.rules import SAME, SettingsError, among, block_numbers

FORMATS = ("pyreft", "easysteer")
_WORDING = ("task", "method", "prompt-format", "retrieved", "profile", "history-rows", "max-length")

ExportedEdit = tuple[tuple[int, ...], Mapping[str, Tensor], str]  # its blocks, its tensors, its rule of positions


def edits(
    settings: Mapping[str, object], collective: Mapping[str, Tensor], private: Mapping[str, Tensor]
) -> list[ExportedEdit]:
    """The edits in the order of composition: of each its blocks, its tensors and its rule of positions.

    Args:
        settings: the flat run config that they were trained with, or as much of it as an earlier release wrote.
        collective, private: R, W (L, r, d) and b (L, r); {} where there are none.
    Raises:
        ValueError: the method trains no LoReFT, or its blocks cannot be told.
    """
    method = str(settings.get("method"))
    keys = class_of(method).loreft if method in METHODS else None
    if keys is None:
        raise SettingsError(
            f"--format {' or '.join(FORMATS)} is for LoReFT edits, and this vault is of {method!r}; take safetensors"
        )
    shared = block_numbers("layers", str(settings["layers"]))
    first = str(settings["positions"])
    own = str(settings.get(keys.positions, SAME))
    own = first if own == SAME else own
    in_order: list[ExportedEdit] = []
    if "D" in collective:
        collective = _with_its_R(collective, int(str(settings["seed"])))
    if collective and not (keys.replaces and private):
        in_order.append((_blocks(shared, collective), collective, first))
    if private:
        rule = str(settings.get(keys.blocks, SAME))
        of_private = shared if keys.blocks == "layers" else _private_blocks(rule, shared, collective, private)
        in_order.append((_blocks(of_private, private), private, own))
    for blocks, tensors, _ in in_order:
        if tensors.keys() != {"R", "W", "b"} or len(tensors["R"]) != len(blocks):
            raise SettingsError(
                f"a LoReFT edit must have R, W and b of the {len(blocks)} blocks that its settings name, got "
                f"{', '.join(f'{name} {tuple(tensor.shape)}' for name, tensor in tensors.items())}; {method!r} must "
                "say in `loreft` where its edits apply, or None (fed/methods/README.md)"
            )
    return in_order


def write(
    folder: Path,
    form: str,
    settings: Mapping[str, object],
    collective: Mapping[str, Tensor],
    private: Mapping[str, Tensor],
) -> None:
    """Write the edits into a new folder of this form, one of FORMATS. Raises ValueError, OSError."""
    in_order = edits(settings, collective, private)
    about = {
        "settings": {key: settings[key] for key in _WORDING if key in settings},
        "stages": [
            {"blocks": list(blocks), "rank": int(tensors["R"].shape[-2]), "positions": positions}
            for blocks, tensors, positions in in_order
        ],
    }
    bare = [(blocks, tensors) for blocks, tensors, _ in in_order]
    if form == "pyreft":
        pyreft_files.write(folder, bare, about)
    else:
        easysteer_files.write(folder, bare, [Positions.parse(positions) for _, _, positions in in_order], about)


def _with_its_R(collective: Mapping[str, Tensor], seed: int) -> Mapping[str, Tensor]:
    """A collective edit that was federated without R, which is the seed's."""
    from fed.methods.perfit import with_the_seeds_R  # here: an export needs no method otherwise

    blocks, rank, hidden_size = collective["D"].shape
    return with_the_seeds_R(dict(collective), EditShape(tuple(range(blocks)), rank, hidden_size), seed)


def _blocks(numbers: tuple[int, ...] | None, tensors: Mapping[str, Tensor]) -> tuple[int, ...]:
    """These blocks, or all of the base model, which are as many as the tensors have."""
    return tuple(range(len(next(iter(tensors.values()))))) if numbers is None else numbers


def _private_blocks(
    rule: str,
    shared: tuple[int, ...] | None,
    collective: Mapping[str, Tensor],
    private: Mapping[str, Tensor],
) -> tuple[int, ...] | None:
    """The blocks of the private edit, which may be named by those of the collective one."""
    if shared is None and not collective and rule not in (SAME, "all"):
        raise SettingsError(
            f"the blocks of an edit must be told from its settings, and stage2-layers={rule!r} of layers='all' tells "
            "them for a known base alone; export as safetensors"
        )
    return among("stage2-layers", rule, _blocks(shared, collective or private))
