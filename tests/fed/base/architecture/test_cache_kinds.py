"""A cache serves what it can; what it cannot is left out, said in a line, and answers stay those of whole rows."""

import functools

import pytest
import torch

from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.base.architecture import cache_kinds
from fed.base.architecture.cache_kinds import Served, served_by
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward.batching import Row
from tests.families.bases import base_of

PROMPTS = ((5, 9, 11, 4, 3, 8, 21), (6,), (13, 14, 15, 2))
LABELS = ((7,), (7, 9, 4, 0), (12, 3, 0))


def test_plain_keys_and_values_serve_everything_without_being_asked(tiny32, monkeypatch):
    monkeypatch.setattr(cache_kinds, "_asked", lambda _: pytest.fail("asked"))
    assert served_by(tiny32.model, 4) == Served() and Served().left_out() == []
    assert "left_out" not in tiny32.describe()


def test_windows_serve_all_but_prefixes(make_base):
    base = base_of("mistral")
    assert base.serves == Served(prefix=False)
    assert base.describe()["left_out"] == ["tokens before every edited one are read in each training step"]


@pytest.mark.parametrize("family", ["lfm2", "mamba"])
def test_states_of_convolutions_and_linear_attention_are_asked(family):
    base = base_of(family)
    assert base.serves.steps and base.serves.left and base.serves.leaving and not base.serves.prefix
    assert base.describe()["left_out"]


def _refuses_to_select(monkeypatch):
    def refuse(*_):
        raise AttributeError("no batch_select_indices")

    monkeypatch.setattr(cache_kinds, "select_rows", refuse)


def _selects_the_wrong_rows(monkeypatch):
    real = cache_kinds.select_rows
    monkeypatch.setattr(cache_kinds, "select_rows", lambda cache, index: real(cache, index.clamp(max=0)))


@pytest.mark.parametrize("broken", [_refuses_to_select, _selects_the_wrong_rows])
def test_a_cache_that_cannot_give_rows_up_is_found_out(monkeypatch, broken):
    model = base_of("lfm2").model
    assert served_by(model, 4).leaving
    broken(monkeypatch)
    assert not served_by(model, 4).leaving and not served_by(model, 4).shared_prompt


def test_a_padded_row_that_is_no_number_is_found_out(monkeypatch):
    """As where softmax sees a token that may look at nothing; the row without pads agrees."""
    model = base_of("lfm2").model
    real = model.forward

    @functools.wraps(real)
    def forward(*what, attention_mask=None, **how):
        output = real(*what, attention_mask=attention_mask, **how)
        if attention_mask is not None:
            output.logits[(attention_mask == 0).any(-1)] = float("nan")
        return output

    monkeypatch.setattr(model, "forward", forward)
    assert served_by(model, 4).steps and not served_by(model, 4).left


LESS = {
    "nothing": Served(),
    "rows stay": Served(leaving=False),
    "one length": Served(left=False),
    "one length, and rows stay": Served(left=False, leaving=False),
    "one token at a time": Served(several=False),
    "no cache": Served(steps=False, left=False, several=False, prefix=False),
}


@pytest.mark.parametrize("less", LESS)
@pytest.mark.parametrize("where", ["all-f1", "l2"])
def test_whatever_is_left_out_answers_and_choices_stay_those_of_whole_rows(make_base, random_bank, less, where):
    """`leaving` matters: rows end at different steps."""
    full, base = make_base("float64"), make_base("float64")
    base.__dict__["serves"] = LESS[less]
    at = Positions.parse(where)
    stack = EditStack(Layer(random_bank(1, seed=1), at, shared=True), Layer(random_bank(2, seed=2), at))
    rows = [EditedRow(Row(p, ()), e) for p in PROMPTS for e in ((None, None), (0, 0), (0, 1))]
    sampled = Decoding(12, temperature=2.0, top_k=50, top_p=1.0)
    for decoding in (Decoding(12), sampled):
        draws = [torch.Generator().manual_seed(i) for i in range(len(rows))]
        texts = generate(base, rows, stack, decoding, generators=draws)
        draws = [torch.Generator().manual_seed(i) for i in range(len(rows))]
        alone = [generate(full, [row], stack, decoding, generators=[g])[0] for row, g in zip(rows, draws, strict=True)]
        assert texts == alone
    assert len({len(text) for text in texts}) > 1
    asked = [EditedRow(Row(p, label), (0, 1)) for p in PROMPTS for label in LABELS]
    alone = [losses(full, [row], stack)[0].nll for row in asked]
    assert [loss.nll for loss in losses(base, asked, stack)] == pytest.approx(alone, rel=1e-9)
