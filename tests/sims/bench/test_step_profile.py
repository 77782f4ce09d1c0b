"""FLOPs by count against torch's own counter, and which kind of work an operation is."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

TOKENS, LABELS, FIRST = 12, 5, 1


def counted(base, leaves: list[torch.nn.Module], labels: int | None = None) -> float:
    """FLOPs a token of a forward and backward pass in which the outputs of `leaves` have a gradient."""

    def begin(_module, _inputs, output):
        return output + torch.zeros_like(output, requires_grad=True)

    handles = [leaf.register_forward_hook(begin) for leaf in leaves]
    rows = 3
    ids = torch.randint(3, 90, (rows, TOKENS), generator=torch.Generator().manual_seed(0))
    try:
        with FlopCounterMode(display=False) as counter:
            logits = base.model(input_ids=ids, use_cache=False, logits_to_keep=labels or 0).logits
            logits.sum().backward()
    finally:
        for handle in handles:
            handle.remove()
    return counter.get_total_flops() / (rows * TOKENS)


def test_the_count_is_torchs_own(script, make_base):
    profile, base = script("bench.step_profile"), make_base("float32", num_key_value_heads=4)
    found = profile.flops_per_token(base, (FIRST, 2), TOKENS, LABELS, epochs=1)
    blocks = base.model.model.layers
    attention = blocks[0].self_attn
    # torch counts rotary angles too
    assert counted(base, [blocks[FIRST]]) == pytest.approx(found["pyreft"], rel=0.03)
    assert counted(base, [blocks[FIRST]], LABELS) == pytest.approx(found["ours"], rel=0.03)
    assert counted(base, [attention.q_proj, attention.v_proj]) == pytest.approx(found["peft"], rel=0.03)


def test_later_epochs_save_the_blocks_below_the_first_edit(script, make_base):
    profile, base = script("bench.step_profile"), make_base("float32")
    once, twice = (profile.flops_per_token(base, (FIRST, 2), TOKENS, LABELS, epochs=e)["ours"] for e in (1, 2))
    heads, d, kv, mlp = 4, 32, 16, 48
    assert heads * 8 == d
    block = 2 * (2 * d * d + 2 * d * kv + 3 * d * mlp) + 4 * TOKENS * d
    assert once - twice == pytest.approx((FIRST + 1) * block / 2)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("aten::mm", "matrix products"),
        ("aten::bmm", "attention and edits, row by row"),
        ("aten::_softmax", "attention and edits, row by row"),
        ("aten::_log_softmax", "log-softmax of labels"),
        ("aten::expand", "other"),
        ("aten::copy_", "copies"),
        ("aten::silu_backward", "elementwise"),
        ("aten::linalg_qr", "other"),
    ],
)
def test_an_operation_is_of_one_kind(script, name, group):
    assert script("bench.step_profile").group_of(name) == group


def test_speeds_of_products_are_positive_numbers(script, make_base):
    profile = script("bench.step_profile")
    assert profile.product_speed(make_base("float32"), 16, repeats=1) > 0
    assert profile.peak_speed("cpu", torch.float32, size=64) > 0
