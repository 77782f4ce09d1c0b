"""Shifts added at decoding: what the dose says is added, where it should be."""

import pytest
import torch

from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.base.random_base import HIDDEN
from fed.edits.stack import BARE, EditStack
from fed.edits.steering import steering
from fed.forward.batching import Row

ROW = Row((5, 6, 7, 8), (9, 10, 1))


def test_a_dose_adds_so_much_of_the_direction_from_the_prompt_s_last_token_on(tiny64):
    s = torch.randn(2, HIDDEN, generator=torch.Generator().manual_seed(0))
    stack = EditStack(steering(s, (0.0, 0.5, -2.0), block=1)).to(dtype=torch.float64)

    def by_hand(direction, dose):
        def add(_module, _inputs, h):
            out = h.clone()
            out[0, len(ROW.prompt) - 1 :] += dose * direction.double()
            return out

        handle = tiny64.model.model.layers[1].register_forward_hook(add)
        try:
            logits = tiny64.model(torch.tensor([ROW.prompt + ROW.completion])).logits[0].detach()
        finally:
            handle.remove()
        picked = logits[len(ROW.prompt) - 1 : -1].log_softmax(-1)
        return -picked[range(3), ROW.completion].sum().item()

    seen = losses(tiny64, [EditedRow(ROW, (n,)) for n in range(6)], stack)
    expected = [by_hand(s[n], dose) for n in (0, 1) for dose in (0.0, 0.5, -2.0)]
    assert [loss.nll for loss in seen] == pytest.approx(expected, rel=1e-6)
    (bare,) = losses(tiny64, [EditedRow(ROW)], BARE)
    assert seen[0].nll == pytest.approx(bare.nll) and seen[1].nll != pytest.approx(bare.nll, rel=1e-4)


def test_no_direction_adds_nothing(tiny64):
    stack = EditStack(steering(torch.zeros(1, HIDDEN), (1.0,), block=1)).to(dtype=torch.float64)
    (loss,), (bare,) = losses(tiny64, [EditedRow(ROW, (0,))], stack), losses(tiny64, [EditedRow(ROW)], BARE)
    assert loss.nll == pytest.approx(bare.nll)
