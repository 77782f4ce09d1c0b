"""Completions of one prompt share its forward pass, and score as they would row by row."""

import pytest
import torch

from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.edits.positions import Positions
from fed.edits.stack import BARE, EditStack, Layer
from fed.forward.batching import Row
from fed.forward.budget import Budget

LABELS = [(7,), (7, 9, 4, 0), (12, 3, 0), (30, 31, 32, 33, 34, 0)]


def asked(seed=0, prompts=3):
    """Rows of all labels for every prompt, under every combination of edits."""
    draw = torch.Generator().manual_seed(seed)
    rows = []
    for length in range(5, 5 + 4 * prompts, 4):
        prompt = tuple(torch.randint(3, 60, (length,), generator=draw).tolist())
        for edits in ((None, None), (0, None), (0, 1), (None, 0)):
            rows += [EditedRow(Row(prompt, label), edits) for label in LABELS]
    return rows


@pytest.mark.parametrize("where", ["all", "all-f1", "prompt", "l2", "f1+l1"])
@pytest.mark.parametrize("budget", [16, 10_000])
def test_a_shared_prompt_scores_as_rows_of_their_own(tiny64, random_bank, hooks_of, where, budget):
    at = Positions.parse(where)
    stack = EditStack(Layer(random_bank(1, seed=1), at, shared=True), Layer(random_bank(2, seed=2), at))
    rows, seen = asked(), []
    together = losses(tiny64, rows, stack, budget=Budget(budget), on_rows=seen.append)
    alone = [losses(tiny64, [row], stack)[0] for row in rows]
    assert [loss.tokens for loss in together] == [loss.tokens for loss in alone]
    assert [loss.eos_tokens for loss in together] == [loss.eos_tokens for loss in alone]
    assert [loss.nll for loss in together] == pytest.approx([loss.nll for loss in alone], rel=1e-9)
    assert [loss.nll_eos for loss in together] == pytest.approx([loss.nll_eos for loss in alone], rel=1e-9)
    assert len({round(loss.nll, 6) for loss in together}) == len(rows)  # every prompt, edit and label tells
    assert sum(seen) == len(rows) and hooks_of(tiny64.model) == 0


def test_the_prompt_is_read_once_for_all_its_labels(tiny32):
    prompt = tuple(range(3, 43))
    rows = [EditedRow(Row(prompt, label)) for label in LABELS]
    read = []
    hook = tiny32.model.model.register_forward_pre_hook(
        lambda _module, _args, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    try:
        losses(tiny32, rows, BARE)
    finally:
        hook.remove()
    assert read == [len(prompt), len(rows) * (max(map(len, LABELS)) - 1)]


def test_the_cache_of_a_batch_keeps_to_twice_the_budget(tiny32):
    rows = [EditedRow(Row((*range(3, 23), 30 + number), label)) for number in range(6) for label in LABELS]
    one = len(LABELS) * (21 + max(map(len, LABELS)))  # tokens that one prompt's labels keep
    sizes = []
    hook = tiny32.model.model.register_forward_pre_hook(
        lambda _module, _args, given: sizes.append(given["input_ids"].shape[0]), with_kwargs=True
    )
    try:
        losses(tiny32, rows, BARE, budget=Budget(one + one // 2))
    finally:
        hook.remove()
    assert sizes == [3, 3 * len(LABELS)] * 2


def test_labels_of_one_token_need_no_second_pass(tiny64):
    rows = [EditedRow(Row((5, 6, 7), (token,))) for token in (8, 9)]
    found = losses(tiny64, rows, BARE)
    logits = tiny64.model(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1].log_softmax(-1)
    assert [loss.nll for loss in found] == pytest.approx([-logits[8].item(), -logits[9].item()], rel=1e-9)


def test_rows_alone_and_shared_keep_their_order(tiny64):
    rows = [EditedRow(Row(p, c)) for p, c in (((5, 6), (7, 0)), ((9,), (4, 0)), ((5, 6), (8, 0)), ((9, 9), (4, 4, 0)))]
    together = losses(tiny64, rows, BARE)
    alone = [losses(tiny64, [row], BARE)[0] for row in rows]
    assert [loss.nll for loss in together] == pytest.approx([loss.nll for loss in alone], rel=1e-9)
