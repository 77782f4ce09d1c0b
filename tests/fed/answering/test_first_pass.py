"""The pass over prompts: arms of one prompt share what they have in common, and get what each gets by itself."""

import pytest
import torch

from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.first_pass import first_pass
from fed.edits.hooks import decoder_blocks
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward.batching import Row, pad
from fed.forward.last_logits import last_logits

PROMPTS = [(5, 9, 40, 7, 3, 61), (8, 12), (90, 44, 2, 17)]
ARMS = [(None, None), (0, None), (0, 1), (0, 2)]  # base, stage 1, stage 1 + 2, swapped
ROWS = [EditedRow(Row(prompt, (7, 0)), arm) for arm in ARMS for prompt in PROMPTS]


@pytest.fixture(scope="module")
def stack(random_bank):
    """Collective edits at blocks 0, 1 and 2, private ones at 2 and 3, the two at positions of their own."""
    collective, private = random_bank(1, layers=(0, 1, 2), seed=1), random_bank(3, layers=(2, 3), seed=2)
    return EditStack(Layer(collective, Positions.parse("all-f1"), shared=True), Layer(private, Positions.parse("all")))


def read(base, rows, stack):
    batch = pad([row.row for row in rows], base.pad_id, "cpu", left=True, prompts_only=True)
    with torch.no_grad():
        return first_pass(base, batch, [row.edits for row in rows], stack)


def test_the_shared_pass_gives_what_a_pass_for_each_row_gives(tiny64, stack, hooks_of):
    logits, cache = read(tiny64, ROWS, stack)
    assert len(cache.layers) == tiny64.skeleton.layers
    for place, row in enumerate(ROWS):
        alone, of_row = read(tiny64, [row], stack)
        torch.testing.assert_close(logits[place], alone[0], rtol=0, atol=1e-11)
        length = len(row.row.prompt)
        for shared, own in zip(cache.layers, of_row.layers, strict=True):
            for kind in ("keys", "values"):
                numbers = getattr(shared, kind)[place, :, -length:]
                torch.testing.assert_close(numbers, getattr(own, kind)[0], rtol=0, atol=1e-11)
    assert hooks_of(tiny64.model) == 0


def test_each_block_reads_each_kind_of_row_once(tiny64, stack):
    """Below the first edit three prompts; below the first private one two arms of each; above it all four."""
    seen = [[] for _ in range(4)]
    handles = [
        block.register_forward_pre_hook(lambda _m, inputs, i=i: seen[i].append(len(inputs[0])))
        for i, block in enumerate(decoder_blocks(tiny64.model))
    ]
    tiny64.serves, read(tiny64, ROWS, stack)  # what a base is asked once
    for of_block in seen:
        of_block.clear()
    try:
        read(tiny64, ROWS, stack)
    finally:
        for handle in handles:
            handle.remove()
    assert seen == [[3], [6], [6], [12]]


def test_answers_in_float32_are_those_of_each_row_alone(make_base, stack):
    base = make_base("float32")
    stack32 = stack.to(dtype=torch.float32)
    together = generate(base, ROWS, stack32, Decoding(8))
    assert together == [generate(base, [row], stack32, Decoding(8))[0] for row in ROWS]
    assert len(set(together)) > 8


def test_a_base_whose_cache_serves_no_prefix_reads_every_row(make_base, stack):
    base = make_base("float64", seed=0)
    base.__dict__["serves"] = type(base.serves)(prefix=False)
    seen = []
    handle = decoder_blocks(base.model)[0].register_forward_pre_hook(lambda _m, inputs: seen.append(len(inputs[0])))
    try:
        read(base, ROWS, stack)
    finally:
        handle.remove()
    assert seen == [len(ROWS)]


def test_the_output_projection_reads_states_without_a_stride(tiny32):
    heads = []
    handle = tiny32.model.get_output_embeddings().register_forward_hook(
        lambda _module, inputs, output: heads.append((inputs[0].is_contiguous(), output.shape[1]))
    )
    batch = pad([row.row for row in ROWS[:3]], tiny32.pad_id, "cpu", left=True, prompts_only=True)
    try:
        with torch.no_grad():
            last_logits(tiny32.model, batch.input_ids, batch.attention_mask, batch.position_ids, None)
    finally:
        handle.remove()
    assert heads == [(True, 1)]
