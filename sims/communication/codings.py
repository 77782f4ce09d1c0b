"""What entropy coding is worth on a run's own change: each dtype's bytes as they are, and coded in several ways.

The change is that of the run's collective edit from where stage 1 began. `deflated` is what `wire-coding="deflate"`
sends: Huffman codes alone; zlib searches for repetitions too, and LZMA models the bytes as well.
"""

from __future__ import annotations

import lzma
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from simulation.apps import SIMS, defaults

from fed import methods
from fed.base.skeleton import skeleton
from fed.communication import changes, wire
from fed.communication.quantization import NARROW
from fed.privacy.tensor_files import read_tensors
from fed.randomness import generator
from fed.settings.settings import Settings


def codings(report: Mapping[str, Any], folder: Path) -> list[dict[str, Any]]:
    """A row a dtype: bytes plain, deflated, by zlib and by LZMA, headers left out where there can be none.

    Args:
        report: of a run in float32.
        folder: where its collective.safetensors is.
    """
    settings = Settings.parse({**defaults(SIMS / report["app"]), **report["settings"]}, finished=True)
    start = methods.make(settings, skeleton(settings.base_source)).initial_collective()
    end, _ = read_tensors(folder / "collective.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in start.items()}
    bodies = {"float32": wire.pack({name: end[name] for name in shapes}).tobytes()}
    deflated: dict[str, int | None] = {"float32": None}
    for dtype in NARROW:
        for coded in (False, True):
            packing = changes.packing(shapes, dtype, deflated=coded)
            packed = packing.pack(changes.between(start, end), generator(settings.seed, "codings"))
            if coded:
                deflated[dtype] = packed.nbytes
            else:
                bodies[dtype] = packed.tobytes()
    return [
        {"dtype": dtype, "plain": len(body), "deflated": deflated[dtype], "zlib": _zlib(body), "lzma": _lzma(body)}
        for dtype, body in bodies.items()
    ]


def _zlib(body: bytes) -> int:
    machine = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9)
    return len(machine.compress(body) + machine.flush())


def _lzma(body: bytes) -> int:
    return len(lzma.compress(body, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 0, "pb": 0}]))
