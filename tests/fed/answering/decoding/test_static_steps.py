"""Steps in buffers of full length write what steps over a growing cache do. (Their recording needs a GPU.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fed.answering.decoding import static_steps
from fed.answering.decoding.generate import Decoding, generate
from fed.answering.decoding.static_steps import StaticSteps
from fed.answering.decoding.steps import GrowingSteps
from fed.answering.edited_rows import EditedRow
from fed.base.model import BaseModel
from fed.edits.loreft import EditBank
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward.batching import Row, pad, tokenize
from fed.randomness import generator

PROMPTS = ["gae hge", "b", "cebbfh bf", "aeh", "gahfdfbdddc ", "ab ", "gae hge"]


def asked(base: BaseModel, random_bank: Callable[..., EditBank], rule: str) -> tuple[list[EditedRow], EditStack]:
    """Rows of several lengths, one of them twice, under no edit, one and two of them; the stack of these edits."""
    stack = EditStack(
        Layer(random_bank(1, seed=1), Positions.parse(rule), shared=True),
        Layer(random_bank(3, seed=2), Positions.parse(rule)),
    ).to(device="cpu", dtype=base.model.dtype)
    rows = tokenize([(prompt, "x") for prompt in PROMPTS], base.tokenizer, 64)
    edits = [(None, None), (0, None), (0, 1), (None, 2), (0, 0), (0, 2), (0, 1)]
    return [EditedRow(row, own) for row, own in zip(rows, edits, strict=True)], stack


@pytest.fixture
def no_growing_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise AssertionError("a growing cache was stepped over")

    monkeypatch.setattr(GrowingSteps, "read", refused)


@pytest.mark.parametrize("rule", ["all", "all-f1", "answer", "prompt"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("token_budget", [4096, 60])
def test_texts_are_those_of_a_growing_cache(
    tiny64: BaseModel, random_bank: Callable[..., EditBank], rule: str, temperature: float, token_budget: int
) -> None:
    rows, stack = asked(tiny64, random_bank, rule)

    def texts(static: bool) -> list[str]:
        draws = [generator(0, "draw", i) for i in range(len(rows))]
        return generate(
            tiny64,
            rows,
            stack,
            Decoding(12, temperature, static=static),
            generators=draws,
            token_budget=token_budget,
        )

    assert texts(True) == texts(False)


def test_they_are_what_decodes_where_they_are_asked_for(
    tiny64: BaseModel, random_bank: Callable[..., EditBank], no_growing_steps: None
) -> None:
    rows, stack = asked(tiny64, random_bank, "all")
    assert any(generate(tiny64, rows, stack, Decoding(6, static=True)))
    with pytest.raises(AssertionError, match="a growing cache"):
        generate(tiny64, rows, stack, Decoding(6))


def test_a_row_that_would_run_out_of_positions_is_read_by_a_growing_cache(
    make_base: Callable[..., BaseModel], random_bank: Callable[..., EditBank], no_growing_steps: None
) -> None:
    base = make_base("float64", max_position_embeddings=16)
    rows, stack = asked(base, random_bank, "all")
    longest = max(len(row.row.question) for row in rows)
    assert static_steps.serve(
        base, pad([row.row for row in rows], 0, "cpu", left=True, prompts_only=True), 16 - longest
    )
    with pytest.raises(AssertionError, match="a growing cache"):
        generate(base, rows, stack, Decoding(17 - longest, static=True))


def test_a_step_undone_and_taken_again_changes_nothing(tiny64: BaseModel) -> None:
    """What the warm-up before a recording does."""
    from fed.answering.first_pass import first_pass
    from fed.edits.stack import BARE

    rows = [Row((5, 9, 7, 3), ()), Row((4, 8), ())]
    batch = pad(rows, tiny64.pad_id, "cpu", left=True, prompts_only=True)

    def logits(undone: int) -> torch.Tensor:
        _, cache = first_pass(tiny64, batch, [(), ()], BARE)
        with torch.no_grad(), BARE.attached(tiny64.model) as attached:
            steps = StaticSteps(tiny64, batch, cache, [(), ()], attached, 4)
            steps.read([6, 7])
            for _ in range(undone):
                steps._pass()
                steps._back()
            return steps.read([9, 3])

    assert torch.equal(logits(0), logits(2))


def test_they_are_wanted_on_a_gpu_alone_and_where_the_environment_says_so(
    tiny32: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERFIT_GRAPHS", "1")
    assert not static_steps.wanted(tiny32)
    on_gpu = BaseModel("tiny", tiny32.model, tiny32.tokenizer, "float32", "cuda:0", "0" * 16)
    assert static_steps.wanted(on_gpu)
    monkeypatch.delenv("PERFIT_GRAPHS")
    assert not static_steps.wanted(on_gpu)
