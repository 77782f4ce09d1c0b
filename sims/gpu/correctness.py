"""Does a device compute what float64 on the CPU computes? Losses of training, the edits it ends with, and answers.

    python -m gpu.correctness cuda FILE

A random Llama of four blocks, four users with edits of their own in one batch, two epochs; then each user's rows are
continued under its edit. The reference is the same code on the CPU in float64, which tests hold against engines of
other people's. Edits are compared as maps, M = Rᵀ(W − R), by Frobenius norm. AdamW's first steps take a gradient's
sign, so an edit differs by more than a loss does. The same answers are written once more in buffers of full length, on
a GPU by a CUDA graph. Code 1 where a bound is passed, or where these are others in float32 or float64.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fed  # noqa: F401  threads are bounded before torch is loaded

import torch  # isort: skip
from bench.training_cases import CACHE_BYTES, EVERYWHERE, PLAN, some_rows
from console.files import write_json
from rich.console import Console
from rich.table import Table

from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.base import gpu_kernels
from fed.base.architecture import grouped_attention
from fed.base.device import DTYPES, has_float64
from fed.base.model import BaseModel
from fed.base.random_base import tiny_llama, tiny_tokenizer
from fed.edits.loreft import EditBank, EditShape
from fed.edits.stack import EditStack, Layer
from fed.forward.activation_cache import CACHE
from fed.randomness import generator
from fed.training import train as training

USERS, ROWS, WIDTH = 4, 4, 128
# dtype -> largest relative difference of (a step's loss, an edit as a map).
BOUNDS = {"float64": (1e-5, 1e-2), "float32": (1e-4, 2e-2), "bfloat16": (3e-2, 0.6)}


@dataclass(frozen=True)
class Outcome:
    """losses: (user, step); maps: (user, block, d, d), on the CPU in float64; texts: of each user's first row, and the
    same in buffers of full length."""

    losses: torch.Tensor
    maps: torch.Tensor
    texts: list[str]
    static_texts: list[str]


def outcome(device: str, dtype: str) -> Outcome:
    """Train and answer on one device in one dtype."""
    attention = "eager" if device == "cpu" and dtype != "float64" else "sdpa"  # as `base_model.load`
    shape: dict[str, Any] = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "attn_implementation": attention}
    model = tiny_llama(**shape).to(device=device, dtype=DTYPES[dtype]).requires_grad_(False).eval()
    gpu_kernels.fused(model, device)
    grouped_attention.use(model)
    base = BaseModel("random", model, tiny_tokenizer(), dtype, device, "0" * 16)
    edits = EditShape((1, 2), 4, WIDTH)
    bank = EditBank.identity(edits, [generator(0, "edit", u) for u in range(USERS)]).to(device=device)
    rows = some_rows(base, USERS * ROWS)
    own = [rows[u * ROWS : (u + 1) * ROWS] for u in range(USERS)]
    plan = replace(PLAN, batch_size=ROWS, epochs=4, rate=0.01, activation_cache=CACHE_BYTES)
    stack = EditStack(Layer(bank, EVERYWHERE))
    CACHE.clear()
    results = training.train(base, stack, own, [generator(0, "rows", u) for u in range(USERS)], plan)
    R, W = (tensor.detach().cpu().double() for tensor in (bank.R, bank.W))
    questions = [EditedRow(own[u][0], (u,)) for u in range(USERS)]
    texts, static = (generate(base, questions, stack, Decoding(12, static=static)) for static in (False, True))
    losses = torch.tensor([result.step_losses for result in results], dtype=torch.float64)
    return Outcome(losses, R.mT @ (W - R), texts, static)


def compared(device: str) -> list[dict[str, Any]]:
    """A row a dtype that the device has: how far it is from the reference, and the bounds."""
    reference, rows = outcome("cpu", "float64"), []
    for dtype, (loss, edit) in BOUNDS.items():
        if dtype == "float64" and not has_float64(device):
            continue
        here = outcome(device, dtype)
        row: dict[str, Any] = {
            "dtype": dtype,
            "loss": float((here.losses / reference.losses - 1).abs().max()),
            "loss_bound": loss,
            "edit": float((here.maps - reference.maps).norm() / reference.maps.norm()),
            "edit_bound": edit,
            "equal_texts": sum(a == b for a, b in zip(here.texts, reference.texts, strict=True)),
            "equal_static_texts": sum(a == b for a, b in zip(here.static_texts, here.texts, strict=True)),
            "texts": USERS,
        }
        same = dtype == "bfloat16" or here.static_texts == here.texts
        row["within"] = bool(row["loss"] <= loss and row["edit"] <= edit and same)
        rows.append(row)
    return rows


def main(device: str, file: Path) -> int:
    rows = compared(device)
    write_json(file, {"device": device, "rows": rows})
    table = Table(title=f"{device} against float64 on the CPU", title_justify="left")
    for name in ("dtype", "loss (bound)", "edit (bound)", "equal texts", "in full buffers", "within"):
        table.add_column(name, justify="left" if name == "dtype" else "right")
    for row in rows:
        within = "yes" if row["within"] else "NO"
        pairs = [f"{row[name]:.1e} ({row[f'{name}_bound']:.0e})" for name in ("loss", "edit")]
        texts = [f"{row[name]} of {row['texts']}" for name in ("equal_texts", "equal_static_texts")]
        table.add_row(row["dtype"], *pairs, *texts, within)
    Console().print(table)
    return int(not all(row["within"] for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
