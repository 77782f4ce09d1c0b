"""The axes in which R is stepped; AdamW itself is compared with torch's in test_training."""

from __future__ import annotations

import torch

from fed.optimizer import StackedAdamW, axes_of


def test_the_axes_are_orthogonal_random_and_the_same_for_everybody():
    R = torch.zeros(5, 2, 3, 24, dtype=torch.float64)
    axes = axes_of(R)
    eye = torch.eye(24, dtype=torch.float64)
    torch.testing.assert_close(axes @ axes.T, eye, rtol=0, atol=1e-13)
    assert float((axes.abs() - eye).abs().max()) > 0.5  # neither the model's own axes nor a reordering near them
    assert float(axes.abs().max()) < 0.9
    assert torch.equal(axes, axes_of(R[:1]))


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
