"""A stack of layers: composed in order, each with positions of its own, whichever edits the rows of a batch take."""

import pytest
import torch

from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.edits.positions import Positions
from fed.edits.stack import BARE, EditStack, Layer
from fed.forward.batching import Row, pad

ALL = Positions.parse("all")
RULES = ("all", "f1+l2", "answer")
PROMPTS = [(5, 9, 40, 7, 3, 61), (8, 12), (90, 44, 2, 17), (33, 21, 6, 70, 5)]
# What rows take of the collective edit, of two groups' and of three users'.
TAKEN = [(0, 1, 2), (0, 0, None), (None, 1, 0), (0, None, 1), (None, None, None), (), (None, None, 2), (0, 1, 0)]


@pytest.fixture(scope="module")
def banks(random_bank):
    return [
        random_bank(1, layers=(1, 2), seed=1),
        random_bank(2, layers=(0, 2), rank=3, seed=2),
        random_bank(3, layers=(2, 3), rank=1, seed=3),
    ]


@pytest.fixture(scope="module")
def stack(banks):
    return EditStack(*(Layer(b, Positions.parse(r), shared=b.users == 1) for b, r in zip(banks, RULES, strict=True)))


@pytest.fixture(scope="module")
def rows():
    return [EditedRow(Row(PROMPTS[i % 4], (7 + i, 30, 0)), taken) for i, taken in enumerate(TAKEN)]


def applies(rule, prompt, total):
    """Which of a row's tokens the rule edits, by hand."""
    if rule == "all":
        return [True] * total
    if rule == "answer":
        return [t >= prompt - 1 for t in range(total)]
    assert rule == "f1+l2"
    return [t < prompt and (t < 1 or t >= prompt - 2) for t in range(total)]


def edits_of(row, banks, total):
    return [
        (bank, number, applies(rule, len(row.row.prompt), total))
        for bank, number, rule in zip(banks, row.edits, RULES, strict=False)
        if number is not None
    ]


def test_three_layers_compose_in_their_order_for_every_row_of_a_batch(tiny64, banks, stack, rows, reference_logits):
    batch = pad([row.row for row in rows], tiny64.pad_id, "cpu")
    with stack.attached(tiny64.model) as attached, torch.no_grad():
        attached.take([row.edits for row in rows])
        attached.at(batch.prompt, batch.tokens)
        found = tiny64.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    for row, logits in zip(rows, found, strict=True):
        ids = row.row.prompt + row.row.completion
        expected = reference_logits(tiny64, ids, edits_of(row, banks, len(ids)))
        torch.testing.assert_close(logits[: len(ids)], expected, rtol=0, atol=1e-10)
    first = rows[0]
    ids = first.row.prompt + first.row.completion
    backwards = reference_logits(tiny64, ids, edits_of(first, banks, len(ids))[::-1])
    assert float((found[0, : len(ids)] - backwards).abs().max()) > 1e-3  # the order matters here


def test_losses_and_texts_of_rows_under_three_layers_are_those_of_the_reference(
    tiny64, banks, stack, rows, reference_logits, hooks_of
):
    for row, (nll, tokens, *_) in zip(rows, losses(tiny64, rows, stack), strict=True):
        ids = row.row.prompt + row.row.completion
        log_p = reference_logits(tiny64, ids, edits_of(row, banks, len(ids))).log_softmax(-1)
        start = len(row.row.prompt)
        expected = -sum(float(log_p[start + k - 1, token]) for k, token in enumerate(row.row.completion))
        assert tokens == 3 and nll == pytest.approx(expected, abs=1e-10)
    texts = generate(tiny64, rows, stack, Decoding(5))
    for row, text in zip(rows, texts, strict=True):
        ids = list(row.row.prompt)
        for _ in range(5):
            token = int(reference_logits(tiny64, ids, edits_of(row, banks, len(ids)))[-1].argmax())
            if token == tiny64.tokenizer.eos_token_id:
                break
            ids.append(token)
        assert text == tiny64.tokenizer.decode(ids[len(row.row.prompt) :], skip_special_tokens=True)
    assert len(set(texts)) > 4 and hooks_of(tiny64.model) == 0


def test_a_rows_losses_do_not_depend_on_how_many_edits_its_layer_holds(tiny32, random_bank):
    """Bit for bit, in float32: alone in its bank as among others, though one edit could be shared without a copy."""
    many = EditStack(Layer(random_bank(3, rank=4, seed=2, dtype=torch.float32), ALL))
    asked = [Row(prompt, (7, 30, 0)) for prompt in PROMPTS]
    for user in range(3):
        one = many.alone(user)
        assert one.layers[0].bank.users == 1 and not one.layers[0].shared
        among = losses(tiny32, [EditedRow(row, (user,)) for row in asked], many)
        assert among == losses(tiny32, [EditedRow(row, (0,)) for row in asked], one)


def test_a_shared_edit_gives_what_copies_of_it_give(tiny64, random_bank):
    bank = random_bank(1, seed=2)
    asked = [EditedRow(Row(prompt, (7, 30, 0)), (0,)) for prompt in PROMPTS]
    shared, copied = (losses(tiny64, asked, EditStack(Layer(bank, ALL, shared=s))) for s in (True, False))
    assert [loss.nll for loss in shared] == pytest.approx([loss.nll for loss in copied], abs=1e-12)


def test_a_shared_layer_of_several_edits_is_refused(random_bank):
    with pytest.raises(ValueError, match="a shared layer has one edit, got a bank of 2; leave out shared=True"):
        Layer(random_bank(2), ALL, shared=True)


def test_leaves_are_copies_that_take_the_gradients_of_their_rows(tiny64, banks, stack):
    """Two rows of user 2 and one of user 0: three copies, and no gradient for the banks themselves."""
    taken = EditStack(stack.layers[0], Layer(banks[2], ALL))
    batch = pad([Row(prompt, ()) for prompt in PROMPTS[:3]], tiny64.pad_id, "cpu")
    with taken.attached(tiny64.model) as attached:
        leaves = attached.take_leaves(torch.tensor([2, 0, 2]))
        attached.at(batch.prompt, batch.tokens)
        logits = tiny64.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
        logits[:2].square().sum().backward()
    for leaf, name in zip(leaves, ("R", "W", "b"), strict=True):
        assert torch.equal(leaf[0], banks[2].parameters()[name][2]) and torch.equal(
            leaf[1], banks[2].parameters()[name][0]
        )
        assert leaf.grad[0].any() and leaf.grad[1].any() and not leaf.grad[2].any()
    assert all(t.grad is None and not t.requires_grad for bank in banks for t in bank.parameters().values())


def test_the_last_layer_trains_and_the_others_are_frozen(banks, stack):
    assert stack.trained is stack.layers[2] and stack.frozen.layers == stack.layers[:2]
    assert (stack.first_blocks, EditStack(stack.layers[2]).first_blocks, BARE.first_blocks) == ((0, 1, 2), (2,), ())
    assert stack.first_trained_block == 2
    assert [stack.edits_below((0, 1, 2), block) for block in range(4)] == [
        (None, None, None),
        (None, 1, None),
        (0, 1, None),
        (0, 1, 2),
    ]
    assert stack.edits_of(1) == (0, 1, 1)
    moved = stack.to(dtype=torch.float32)
    assert [layer.bank.W.dtype for layer in moved.layers] == [torch.float32] * 3
    assert [(a.positions, a.shared) for a in moved.layers] == [(a.positions, a.shared) for a in stack.layers]
    alone = EditStack(*stack.layers[::2], Layer(banks[1], ALL)).alone(1)
    assert alone.layers[0] is stack.layers[0]
    assert torch.equal(alone.layers[1].bank.W[0], banks[2].W[1]) and torch.equal(alone.trained.bank.b[0], banks[1].b[1])
    alone.trained.bank.b.zero_()
    assert banks[1].b[1].any()  # a copy


def test_the_model_is_clean_after_an_exception_inside(tiny64, stack, hooks_of):
    with pytest.raises(RuntimeError, match="inside"), stack.attached(tiny64.model):
        assert hooks_of(tiny64.model) == 4
        raise RuntimeError("inside")
    assert hooks_of(tiny64.model) == 0
