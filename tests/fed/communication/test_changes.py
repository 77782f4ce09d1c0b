"""The change from one edit to another: exact where it can be, and what is left out is made up for."""

from __future__ import annotations

import pytest
import torch

from fed.communication import changes
from fed.communication.quantization import NARROW
from fed.edits.loreft import EditShape
from fed.edits.stiefel import qr_retraction, random_rows
from fed.randomness import generator

SHAPES = EditShape((1, 5), 4, 256).tensors()


def edit(size: float = 5e-5, seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    R = random_rows(SHAPES["R"], draw)
    return {
        "R": R,
        "W": R + size * torch.randn(SHAPES["W"], generator=draw),
        "b": size * torch.randn(SHAPES["b"], generator=draw),
    }


def trained(start: dict[str, torch.Tensor], seed: int = 1) -> dict[str, torch.Tensor]:
    """An edit as far from `start` as a round goes."""
    draw = torch.Generator().manual_seed(seed)
    R = qr_retraction(start["R"] + 0.003 * torch.randn(SHAPES["R"], generator=draw))
    D = start["W"] - start["R"] + 0.003 * torch.randn(SHAPES["W"], generator=draw)
    return {"R": R, "W": R + D, "b": start["b"] + 0.003 * torch.randn(SHAPES["b"], generator=draw)}


def error_of_map(edit: dict[str, torch.Tensor], true: dict[str, torch.Tensor]) -> float:
    """Relative error of RᵀD in the Frobenius norm."""
    M, M_true = ((e["R"].double().mT @ (e["W"].double() - e["R"].double())) for e in (edit, true))
    return float((M - M_true).norm() / M_true.norm())


def test_in_sixteen_bits_the_map_is_that_of_d_and_rounding_w_leaves_nothing_of_it():
    true = edit()  # entries of D near 5e-5
    rounded = {name: tensor.bfloat16().float() for name, tensor in true.items()}
    assert error_of_map(rounded, true) > 1
    flat = {"R": true["R"], "W": true["R"], "b": torch.zeros(SHAPES["b"])}
    for dtype, bound in (("bfloat16", 0.002), ("float16", 0.001)):
        sent = changes.sent(flat, true, changes.packing(SHAPES, dtype), generator(0))
        assert error_of_map(changes.applied(flat, sent.change), true) < bound


@pytest.mark.parametrize("names", [("R", "W", "b"), ("D", "b"), ("lora_A", "lora_B")])
def test_a_change_that_is_not_rounded_leads_to_the_edit_it_is_about(names):
    start, end = (dict(zip(names, edit(seed=seed).values(), strict=False)) for seed in (0, 1))
    moved = changes.applied(start, changes.between(start, end))
    assert list(moved) == list(names)
    for name in names:
        assert moved[name].dtype == torch.float32
        torch.testing.assert_close(moved[name], end[name], rtol=0, atol=1e-8)


def test_no_change_is_the_edit_itself_bit_for_bit_and_a_wide_edit_stays_wide():
    start = edit()
    nothing = {name: torch.zeros(shape) for name, shape in changes.packing(SHAPES, "int8").shapes.items()}
    assert all(torch.equal(changes.applied(start, nothing)[name], start[name]) for name in start)
    wide = {name: tensor.double() for name, tensor in start.items()}
    assert all(tensor.dtype == torch.float64 for tensor in changes.applied(wide, nothing).values())


@pytest.mark.parametrize("dtype", NARROW)
def test_what_was_left_out_is_made_up_for_by_the_changes_that_follow(dtype):
    """The sum of what was sent is the sum of the changes but for the last feedback, which does not grow."""
    packing, start = changes.packing(SHAPES, dtype), edit()
    feedback, sums, true, errors = None, None, None, []
    for number in range(20):
        end = trained(start, seed=number)
        sent = changes.sent(start, end, packing, generator(number), feedback=feedback)
        feedback = sent.feedback
        change = changes.between(start, end)
        true = change if true is None else {n: true[n] + change[n] for n in true}
        got = {n: t.double() for n, t in sent.change.items()}
        sums = got if sums is None else {n: sums[n] + got[n] for n in got}
        errors.append(float(feedback["D"].norm()))
    for name in sums:
        torch.testing.assert_close(sums[name] + feedback[name].double(), true[name], rtol=0, atol=1e-6)
    assert errors[-1] < 3 * errors[0] + 1e-12
    without = sum(
        changes.sent(start, trained(start, seed=n), packing, generator(n)).change["D"].double() for n in range(20)
    )
    if dtype == "int4":
        assert float((sums["D"] - true["D"]).norm()) < 0.5 * float((without - true["D"]).norm())


def test_a_feedback_is_part_of_the_next_change_and_a_change_that_is_not_finite_is_refused():
    start, packing = edit(), changes.packing(SHAPES, "bfloat16")
    owed = {name: torch.full(shape, 0.5) for name, shape in packing.shapes.items()}
    sent = changes.sent(start, start, packing, generator(0), feedback=owed)
    assert all(bool((tensor == 0.5).all()) for tensor in sent.change.values())
    assert all(bool((tensor == 0).all()) for tensor in sent.feedback.values())
    torn = {**start, "b": torch.full(SHAPES["b"], float("inf"))}
    with pytest.raises(ValueError, match="the change of an edit must be finite"):
        changes.sent(start, torn, packing, generator(0))
