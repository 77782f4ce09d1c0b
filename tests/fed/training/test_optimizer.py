"""AdamW and clipping for stacked users, against torch's own for one; the axes in which R is stepped."""

from __future__ import annotations

import pytest
import torch

from fed.training.optimizer import StackedAdamW, _axes, axes_of, clip_per_user


def test_the_axes_are_orthogonal_random_and_the_same_for_everybody():
    R = torch.zeros(5, 2, 3, 24, dtype=torch.float64)
    axes = axes_of(R)
    eye = torch.eye(24, dtype=torch.float64)
    torch.testing.assert_close(axes @ axes.T, eye, rtol=0, atol=1e-13)
    assert float((axes.abs() - eye).abs().max()) > 0.5  # neither the model's own axes nor a reordering near them
    assert float(axes.abs().max()) < 0.9
    assert torch.equal(axes, axes_of(R[:1]))


def test_the_axes_are_the_same_whatever_the_threads():
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            _axes.cache_clear()
            found.append(_axes(576, torch.float64, "cpu"))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
        _axes.cache_clear()
    assert torch.equal(*found)


def test_a_step_in_axes_is_torchs_adamw_on_the_rotated_numbers():
    draw = torch.Generator().manual_seed(0)
    p = torch.randn(3, 2, 24, generator=draw, dtype=torch.float64)
    axes = axes_of(p)
    rotated = (p @ axes).requires_grad_()
    plain = torch.randn(3, 4, generator=draw, dtype=torch.float64)
    beside = plain.clone().requires_grad_()
    reference = torch.optim.AdamW([rotated, beside], lr=0.05, weight_decay=0.0)
    ours = StackedAdamW([p, plain], 3, [axes, None])
    for _ in range(4):
        p.grad = torch.randn(p.shape, generator=draw, dtype=torch.float64)
        plain.grad = torch.randn(plain.shape, generator=draw, dtype=torch.float64)
        rotated.grad, beside.grad = p.grad @ axes, plain.grad.clone()
        ours.step(torch.tensor([0, 1, 2]), [0.05] * 3)
        reference.step()
        torch.testing.assert_close(p @ axes, rotated.detach(), rtol=0, atol=1e-12)
        torch.testing.assert_close(plain, beside.detach(), rtol=0, atol=1e-12)


def test_stacked_adamw_is_torchs_adamw_user_by_user():
    """Users that skip steps, take rates of their own, and end after different numbers of steps."""
    draw = torch.Generator().manual_seed(0)
    shapes = [(4, 2, 3, 5), (4, 3)]
    stacked = [torch.randn(s, generator=draw, dtype=torch.float64) for s in shapes]
    alone = [[p[u].clone().requires_grad_() for p in stacked] for u in range(4)]
    references = [torch.optim.AdamW(p, weight_decay=0.0) for p in alone]
    for p in stacked:
        p.requires_grad_()
    optimizer = StackedAdamW(stacked, 4)
    for step in range(12):
        active = [u for u in (3, 0, 2, 1) if step < (12, 5, 9, 0)[u] and (step + u) % 4]
        rates = [0.1 / (1 + u + step) for u in active]
        for p in stacked:
            scale = 10.0 ** (3 - step)  # gradients of very different sizes
            p.grad = scale * torch.randn(p.shape, generator=draw, dtype=torch.float64)
        optimizer.step(torch.tensor(active), rates)
        for u, rate in zip(active, rates, strict=True):
            for mine, p in zip(alone[u], stacked, strict=True):
                mine.grad = p.grad[u].clone()
            references[u].param_groups[0]["lr"] = rate
            references[u].step()
        for u in range(4):
            for mine, p in zip(alone[u], stacked, strict=True):
                torch.testing.assert_close(p[u], mine, rtol=0, atol=1e-12)


def test_a_user_without_a_part_in_any_step_keeps_every_bit():
    p = torch.randn(2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    before = p.detach().clone()
    p.grad = torch.ones_like(p)
    StackedAdamW([p], 2).step(torch.tensor([1]), [0.1])
    assert torch.equal(p[0], before[0]) and not torch.equal(p[1], before[1])


@pytest.mark.parametrize("largest", [0.3, 5.0, 100.0])
def test_clipping_is_torchs_for_each_user_apart(largest):
    draw = torch.Generator().manual_seed(0)
    sizes = torch.tensor([0.01, 1.0, 1000.0])
    stacked = [torch.zeros(3, 2, 4, requires_grad=True), torch.zeros(3, 5, requires_grad=True)]
    for p in stacked:
        p.grad = torch.randn(p.shape, generator=draw) * sizes.view(-1, *[1] * (p.dim() - 1))
    expected = []
    for u in range(3):
        alone = [torch.zeros_like(p[u], requires_grad=True) for p in stacked]
        for mine, p in zip(alone, stacked, strict=True):
            mine.grad = p.grad[u].clone()
        torch.nn.utils.clip_grad_norm_(alone, largest)
        expected.append([mine.grad for mine in alone])
    clip_per_user(stacked, largest)
    for u in range(3):
        for p, gradient in zip(stacked, expected[u], strict=True):
            torch.testing.assert_close(p.grad[u], gradient, rtol=1e-6, atol=0)


def test_a_clip_of_zero_leaves_the_gradient():
    p = torch.zeros(2, 3, requires_grad=True)
    p.grad = torch.full_like(p, 1e6)
    clip_per_user([p], 0.0)
    assert torch.equal(p.grad, torch.full_like(p, 1e6))
