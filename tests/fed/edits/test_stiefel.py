"""Orthonormal rows: the retraction, the closest point, the alignment, the uniform draw."""

import pytest
import torch

from fed.edits import stiefel


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gram_schmidt(R):
    """Classical Gram-Schmidt of the rows, by hand."""
    rows = []
    for row in R:
        for q in rows:
            row = row - (row @ q) * q
        rows.append(row / row.norm())
    return torch.stack(rows)


def test_the_retraction_has_orthonormal_rows_of_the_same_shape_and_dtype():
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        R = stiefel.qr_retraction(noise(3, 16, dtype=dtype))
        assert R.shape == (3, 16) and R.dtype == dtype and R.is_contiguous()
        torch.testing.assert_close(R @ R.mT, torch.eye(3, dtype=dtype), rtol=0, atol=tolerance)


def test_the_retraction_is_gram_schmidt_with_the_sign_of_each_row_kept():
    R = noise(4, 9)
    torch.testing.assert_close(stiefel.qr_retraction(R), gram_schmidt(R), rtol=0, atol=1e-13)


def test_the_retraction_fixes_points_of_the_manifold():
    R = torch.linalg.qr(noise(16, 3)).Q.mT * torch.tensor([[1.0], [-1.0], [1.0]], dtype=torch.float64)
    torch.testing.assert_close(stiefel.qr_retraction(R), R, rtol=0, atol=1e-14)


def test_the_retraction_is_continuous_at_the_manifold():
    R = torch.linalg.qr(noise(16, 3)).Q.mT
    moved = stiefel.qr_retraction(R + 1e-7 * noise(3, 16, seed=1))
    assert float((moved - R).abs().max()) < 1e-5  # without the sign convention a row may flip: 2 / sqrt(d)


def test_a_batch_is_retracted_one_by_one():
    R = noise(2, 5, 3, 8)
    together = stiefel.qr_retraction(R)
    for i in range(2):
        for j in range(5):
            torch.testing.assert_close(together[i, j], gram_schmidt(R[i, j]), rtol=0, atol=1e-13)


def test_one_user_whose_numbers_are_not_finite_leaves_the_others_alone():
    R = noise(2, 3, 8)
    expected = gram_schmidt(R[1])
    R[0] = torch.nan
    torch.testing.assert_close(stiefel.qr_retraction(R)[1], expected, rtol=0, atol=1e-13)


def test_a_square_matrix_with_a_zero_row_product_keeps_a_defined_sign():
    R = torch.eye(3, dtype=torch.float64)
    R[2] = 0.0  # rank 2: T has a zero on its diagonal
    out = stiefel.qr_retraction(R)
    torch.testing.assert_close(out @ out.mT, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-14)


def test_the_polar_factor_is_closer_than_any_other_orthonormal_rows():
    R = noise(3, 7)
    factor, _ = stiefel.polar_factor(R)
    torch.testing.assert_close(factor @ factor.mT, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-14)
    best = float((factor - R).norm())
    assert best < float((stiefel.qr_retraction(R) - R).norm())
    for seed in range(100):
        other = torch.linalg.qr(noise(7, 3, seed=seed)).Q.mT
        nearby = torch.linalg.qr((factor + 0.01 * other).mT).Q.mT
        nearby = nearby * torch.sign((nearby * factor).sum(-1, keepdim=True))
        assert best < float((other - R).norm())
        assert best < float((nearby - R).norm())


def test_the_polar_factor_is_the_inverse_square_root_of_the_gram_matrix_times_the_rows():
    R = noise(3, 7)
    values, vectors = torch.linalg.eigh(R @ R.mT)
    factor, sigma = stiefel.polar_factor(R)
    torch.testing.assert_close(factor, vectors @ torch.diag(values**-0.5) @ vectors.mT @ R, rtol=0, atol=1e-12)
    torch.testing.assert_close(sigma, values.flip(0).sqrt(), rtol=0, atol=1e-12)


def test_the_singular_values_fall_when_averaged_rows_point_apart():
    e = torch.eye(4, dtype=torch.float64)
    _, sigma = stiefel.polar_factor((torch.stack([e[0], e[1]]) + torch.stack([e[0], e[2]])) / 2)
    torch.testing.assert_close(sigma, torch.tensor([1.0, 0.5**0.5], dtype=torch.float64), rtol=0, atol=1e-14)


def test_procrustes_beats_random_rotations():
    R, target = noise(4, 9), noise(4, 9, seed=1)
    Q = stiefel.procrustes(R, target)
    torch.testing.assert_close(Q @ Q.mT, torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-14)
    best = float((Q @ R - target).norm())
    for seed in range(200):
        other = torch.linalg.qr(noise(4, 4, seed=seed)).Q
        assert best < float((other @ R - target).norm())


def test_procrustes_finds_the_rotation_that_was_applied_in_a_batch():
    R, Q = stiefel.qr_retraction(noise(5, 3, 9)), torch.linalg.qr(noise(5, 3, 3, seed=1)).Q
    torch.testing.assert_close(stiefel.procrustes(R, Q @ R), Q, rtol=0, atol=1e-13)


def test_random_rows_are_orthonormal_and_come_from_the_generator_alone():
    torch.manual_seed(1)
    first = stiefel.random_rows((2, 3, 16), torch.Generator().manual_seed(7))
    torch.manual_seed(2)
    again = stiefel.random_rows((2, 3, 16), torch.Generator().manual_seed(7))
    other = stiefel.random_rows((2, 3, 16), torch.Generator().manual_seed(8))
    assert first.dtype == torch.float32 and first.shape == (2, 3, 16)
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.testing.assert_close(first @ first.mT, torch.eye(3).expand(2, 3, 3), rtol=0, atol=1e-6)


def test_random_rows_are_uniform_on_the_manifold():
    """Haar: each row is a uniform point of the sphere, so mean R = 0 and mean RᵀR = (r / d) I, whatever the signs."""
    d, r, n = 5, 2, 20_000
    R = stiefel.random_rows((n, r, d), torch.Generator().manual_seed(0))
    assert float(R.mean(0).abs().max()) < 5 * (1 / d / n) ** 0.5
    torch.testing.assert_close((R.mT @ R).mean(0), r / d * torch.eye(d), rtol=0, atol=0.02)


@pytest.mark.parametrize(("scale", "error"), [(1.0, 0.0), (2.0, 3.0), (0.5, 0.75)])
def test_the_orthogonality_error_is_the_largest_entry_of_the_gram_matrix_less_the_identity(scale, error):
    R = torch.eye(3, 6, dtype=torch.float64).repeat(4, 1, 1)
    R[2] *= scale
    assert stiefel.orthogonality_error(R) == error
