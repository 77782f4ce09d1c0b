"""fed/README.md: its lines, run as they stand in a folder where a run has left a vault."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from fed.answering.decoding.generate import generate
from fed.answering.edited_rows import EditedRow
from fed.privacy.vault import Vault

README = (Path(__file__).resolve().parents[2] / "fed" / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def names(tiny_base, random_bank, tmp_path, monkeypatch):
    """What the names of the document's lines are bound to after all of them."""
    collective, private = (random_bank(rank=rank, seed=rank, dtype=torch.float32).tensors(0) for rank in (3, 2))
    settings = {
        "method": "perfit",
        "base-model": str(tiny_base),
        "layers": "1,2",
        "positions": "all-f1",
        "stage2-positions": "same",
        "seed": 0,
    }
    vault = Vault(tmp_path / "runs" / "lamp7" / "1" / "vault")
    name = vault.write_collective(collective)
    vault.write("test-0000", private, base="b" * 16, collective=name, settings=json.dumps(settings))
    monkeypatch.chdir(tmp_path)
    bound: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, bound)
    return bound


def test_the_documents_lines_answer_under_the_vaults_edits_and_export_them(
    names, reference_logits, random_bank, hooks_of
):
    row, base = names["row"], names["base"]
    mask = [place > 0 for place in range(len(row.prompt))]
    banks = [random_bank(rank=rank, seed=rank, dtype=torch.float32) for rank in (3, 2)]
    expected = reference_logits(base, row.prompt, [(bank, 0, mask) for bank in banks])
    assert torch.allclose(names["logits"][0], expected, atol=1e-4)
    assert not torch.allclose(expected, reference_logits(base, row.prompt, []), atol=1e-2)
    assert hooks_of(names["model"]) == 0
    (bare,) = generate(base, [EditedRow(row)], names["stack"], names["Decoding"](32), stop="\n")
    assert names["answer"] != bare
    files = sorted(file.suffix for file in Path("pyreft-edits").iterdir())
    assert files == [".bin"] * 4 + [".json"] * 2  # two edits of two blocks each
