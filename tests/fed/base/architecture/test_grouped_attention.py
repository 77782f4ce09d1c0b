"""Grouped attention: transformers' numbers, and no bit that hangs on padding, neighbours or threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fed.base import random_base
from fed.base.architecture import grouped_attention
from fed.base.architecture.grouped_attention import attend

Inputs = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def inputs(rows: int, heads: int, groups: int, tokens: int, keys: int, dtype: torch.dtype, width: int = 64) -> Inputs:
    """Query, key and value as a model's blocks hand them over: heads before tokens, by a view."""
    draw = torch.Generator().manual_seed(rows + heads + tokens)
    shapes = ((tokens, heads), (keys, groups), (keys, groups))
    q, k, v = (torch.randn(rows, t, h, width, generator=draw).to(dtype).transpose(1, 2) for t, h in shapes)
    return q, k, v


def causal(padded: list[int], tokens: int, keys: int, dtype: torch.dtype, *, left: bool = False) -> Tensor:
    """(B, 1, T, S): 0 where a query sees a key, the least number elsewhere; `padded` tokens of each row are none."""
    seen = torch.ones(len(padded), 1, tokens, keys, dtype=torch.bool).tril(keys - tokens)
    for row, count in enumerate(padded):
        seen[row, ..., slice(0, count) if left else slice(keys - count, keys)] = False
    return torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)


def through(
    of: Inputs, mask: Tensor | None, slopes: Tensor, *, scaling: float = 0.125, ours: bool = True
) -> list[Tensor]:
    """The output (B, T, H, D), and the gradients to query, key and value; not ours are transformers' eager ones."""
    from transformers.models.llama.modeling_llama import eager_attention_forward

    leaves = [tensor.detach().clone().requires_grad_() for tensor in of]
    module: Any = nn.Module()
    module.num_key_value_groups = of[0].shape[1] // of[1].shape[1]
    output, _ = (attend if ours else eager_attention_forward)(module, *leaves, mask, scaling=scaling)
    output.backward(slopes)
    return [output.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)]


@pytest.mark.parametrize(("heads", "groups"), [(9, 3), (4, 4), (8, 1)])
@pytest.mark.parametrize("left", [False, True])
def test_it_is_attention(heads: int, groups: int, left: bool) -> None:
    """Against torch's own in float64, outputs and gradients, with padding on either side."""
    q, k, v = of = inputs(3, heads, groups, 7, 7, torch.float64, width=5)
    mask = causal([0, 2, 3], 7, 7, torch.float64, left=left)
    slopes = torch.randn(3, 7, heads, 5, dtype=torch.float64)
    for row, count in enumerate((0, 2, 3) if left else ()):
        slopes[row, :count] = 0  # tokens that see nothing, whose output nobody reads
    leaves = [tensor.detach().clone().requires_grad_() for tensor in of]
    wide = [leaves[0], *(leaf.repeat_interleave(heads // groups, 1) for leaf in leaves[1:])]
    expected = nn.functional.scaled_dot_product_attention(*wide, attn_mask=mask, scale=0.3).transpose(1, 2)
    expected.backward(slopes)
    output, *gradients = through(of, mask, slopes, scaling=0.3)
    read = slopes != 0
    torch.testing.assert_close(output[read], expected.detach()[read], rtol=1e-10, atol=1e-12)
    for gradient, leaf in zip(gradients, leaves, strict=True):
        torch.testing.assert_close(gradient, leaf.grad, rtol=1e-10, atol=1e-12)


def test_in_bfloat16_the_output_is_transformers_bit_for_bit_and_gradients_are_to_rounding() -> None:
    of, mask = inputs(4, 9, 3, 21, 21, torch.bfloat16), causal([0, 1, 5, 9], 21, 21, torch.bfloat16)
    slopes = torch.randn(4, 21, 9, 64).bfloat16()
    (ours, *gradients), (theirs, *expected) = (through(of, mask, slopes, ours=mine) for mine in (True, False))
    assert torch.equal(ours, theirs)
    exact = through(tuple(t.double() for t in of), mask.double(), slopes.double(), ours=False)[1:]  # type: ignore[arg-type]
    for gradient, other, truth in zip(gradients, expected, exact, strict=True):
        gap, others_gap = (float((g - truth).norm() / truth.norm()) for g in (gradient, other))
        assert gap < max(1.1 * others_gap, 0.01)


def test_one_query_after_cached_keys() -> None:
    """A step of decoding: the last row of what the whole text gives."""
    q, k, v = inputs(2, 6, 2, 9, 9, torch.float32)
    whole, _ = attend(None, q, k, v, causal([0, 0], 9, 9, torch.float32), 0.125)
    last, _ = attend(None, q[:, :, -1:], k, v, None, 0.125)
    torch.testing.assert_close(last[:, 0], whole[:, -1], rtol=1e-5, atol=1e-6)


def row_0(of: Inputs, slopes: Tensor, *, rows: int, padding: int, threads: int) -> list[Tensor]:
    """What row 0 gets of so many rows, with so much padding behind each and so many threads."""
    torch.set_num_threads(threads)
    tokens, dtype = slopes.shape[1], slopes.dtype
    q, k, v = (nn.functional.pad(tensor[:rows], (0, 0, 0, padding)) for tensor in of)
    mask = causal([padding] * rows, tokens + padding, tokens + padding, dtype)
    output, *gradients = through((q, k, v), mask, nn.functional.pad(slopes[:rows], (0, 0, 0, 0, 0, padding)))
    return [output[0, :tokens], *(gradient[0, :, :tokens] for gradient in gradients)]


@pytest.mark.parametrize("tokens", [21, 56])  # at 56 torch's gradient of a softmax differs between one thread and two
@pytest.mark.parametrize(
    ("dtype", "padding"), [(torch.float32, 0), (torch.bfloat16, 0), (torch.bfloat16, 3), (torch.bfloat16, 11)]
)
def test_no_bit_hangs_on_padding_neighbours_or_threads(
    tokens: int, dtype: torch.dtype, padding: int, threads: None
) -> None:
    """In float32 padding changes the products themselves, by the order in which they add up."""
    of, slopes = inputs(6, 9, 3, tokens, tokens, dtype), torch.randn(6, tokens, 9, 64).to(dtype)
    alone = row_0(of, slopes, rows=1, padding=0, threads=1)
    for rows, count in ((1, 2), (2, 1), (6, 1), (6, 2)):
        together = row_0(of, slopes, rows=rows, padding=padding, threads=count)
        assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True)), (rows, count)


def test_bases_of_known_form_on_the_host_attend_so() -> None:
    assert random_base.load("random:tiny", device="cpu", dtype="float32").model.config._attn_implementation == "grouped"
    assert (
        random_base.load("random:tiny", device="cpu", dtype="bfloat16").model.config._attn_implementation == "grouped"
    )
    wide = random_base.load("random:tiny", device="cpu", dtype="float64").model
    assert wide.config._attn_implementation != "grouped"
    wide.to(torch.float32).config.model_type = "gemma2"  # caps its scores
    assert not grouped_attention.use(wide)


def test_dropout_is_refused() -> None:
    q, k, v = inputs(1, 2, 1, 3, 3, torch.float32)
    with pytest.raises(ValueError, match="dropout of attention must be 0 in a frozen base, got 0.1"):
        attend(None, q, k, v, None, 0.125, dropout=0.1)
