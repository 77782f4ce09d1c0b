"""The edit's formula, the edit that changes nothing, and a bank of many users' edits."""

import pytest
import torch
from torch import nn

from fed.edits.hooks import AttachedLayer, edited
from fed.edits.loreft import EditBank, EditShape, loreft
from fed.edits.stiefel import orthogonality_error
from fed.randomness import generator


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_edit_of_two_numbers_by_hand():
    """R = [0.6 0.8], W = [1 2], b = 0.5, h = (1, 1): R h = 1.4, W h + b = 3.5, so h + 2.1 R = (2.26, 2.68)."""
    h, R, W, b = (torch.tensor(x, dtype=torch.float64) for x in ([[[1, 1]]], [[0.6, 0.8]], [[1, 2]], [0.5]))
    expected = torch.tensor([[[2.26, 2.68]]], dtype=torch.float64)
    torch.testing.assert_close(loreft(h, R, W, b), expected, rtol=0, atol=1e-14)


def test_the_edit_is_the_papers_formula_at_every_position_under_the_mask():
    h, R, W, b = noise(2, 3, 8), noise(3, 8, seed=1), noise(3, 8, seed=2), noise(3, seed=3)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    out = loreft(h, R, W, b, mask)
    for i in range(2):
        for t in range(3):
            x = h[i, t]
            expected = x + R.T @ (W @ x + b - R @ x) if mask[i, t] else x
            torch.testing.assert_close(out[i, t], expected, rtol=0, atol=1e-13)
    assert torch.equal(out[~mask], h[~mask])


def test_no_mask_is_every_position():
    h, R, W, b = noise(2, 3, 8), noise(3, 8, seed=1), noise(3, 8, seed=2), noise(3, seed=3)
    assert torch.equal(loreft(h, R, W, b), loreft(h, R, W, b, torch.ones(2, 3, dtype=torch.bool)))
    assert not torch.equal(loreft(h, R, W, b), h)


def test_one_edit_per_row_equals_separate_calls():
    h, R, W, b = noise(4, 5, 8), noise(4, 2, 8, seed=1), noise(4, 2, 8, seed=2), noise(4, 2, seed=3)
    mask = noise(4, 5, seed=4) > 0
    together = loreft(h, R, W, b, mask)
    for i in range(4):
        alone = loreft(h[i : i + 1], R[i], W[i], b[i], mask[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-14)


def test_rotated_coordinates_are_the_same_edit():
    h, R, W, b = noise(2, 3, 8), noise(3, 8, seed=1), noise(3, 8, seed=2), noise(3, seed=3)
    Q = torch.linalg.qr(noise(3, 3, seed=4)).Q
    assert float((Q @ R - R).abs().max()) > 0.1
    torch.testing.assert_close(loreft(h, Q @ R, Q @ W, Q @ b), loreft(h, R, W, b), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_result_has_the_dtype_of_the_hidden_state_and_is_computed_in_that_of_the_edit(dtype):
    h = noise(1, 4, 8).to(dtype)
    R, W, b = (noise(*shape, seed=i).float() for i, shape in enumerate([(2, 8), (2, 8), (2,)]))
    out = loreft(h, R, W, b)
    assert out.dtype == dtype
    exact = (h.double() @ (W - R).double().T + b.double()) @ R.double()
    torch.testing.assert_close(out, h + exact.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_untrained_edit_changes_no_bit_of_a_hidden_state(dtype):
    h = (100 * noise(3, 7, 32)).to(dtype)
    bank = EditBank.identity(EditShape((0,), 4, 32), [generator(0, "u")])
    assert torch.equal(loreft(h, bank.R[0, 0], bank.W[0, 0], bank.b[0, 0]), h)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_untrained_edits_change_no_bit_of_a_models_logits(make_base, dtype):
    base = make_base(dtype)
    ids = torch.tensor([[5, 9, 40, 7, 3, 61], [8, 8, 12, 90, 44, 2]])
    shape = EditShape((0, 1, 2, 3), 4, 32)
    shared, own = (
        EditBank.identity(shape, [generator(0)]),
        EditBank.identity(shape, [generator(1), generator(2)]),
    )
    with torch.no_grad():
        plain = base.model(input_ids=ids).logits
        with edited(base.model, [AttachedLayer(shared), AttachedLayer(own, torch.tensor([1, 0]))]) as session:
            session.gather()
            session.set_masks([torch.ones_like(ids, dtype=torch.bool)] * len(session.layers))
            assert torch.equal(base.model(input_ids=ids).logits, plain)
            own.W[1, 3, 0, 0] += 1.0  # the hooks do run: the same call is another once the edit is trained
            session.gather()
            assert not torch.equal(base.model(input_ids=ids).logits[0], plain[0])
            assert torch.equal(base.model(input_ids=ids).logits[1], plain[1])


@pytest.mark.parametrize(
    ("layers", "rank", "hidden", "expected"),
    [
        (3, 8, 576, 3 * (2 * 8 * 576 + 8)),
        (1, 1, 2, 5),
        (6, 8, 4096, 393_216 + 48),  # DESIGN section 6: 2N stage 1, a rank sum of 48, and its biases
        (8, 12, 4096, 786_432 + 96),
    ],
)
def test_an_edit_has_two_matrices_and_a_bias_a_layer(layers, rank, hidden, expected):
    shape = EditShape(tuple(range(layers)), rank, hidden)
    assert shape.parameters == expected
    bank = EditBank.identity(EditShape(shape.blocks, rank, hidden), [generator(0)])
    assert sum(t.numel() for t in bank.tensors(0).values()) == expected
    assert {name: tuple(t.shape) for name, t in bank.tensors(0).items()} == shape.tensors()
    assert list(shape.tensors()) == ["R", "W", "b"]


def test_an_untrained_bank_is_the_identity_on_the_manifold_and_differs_by_generator():
    bank = EditBank.identity(EditShape((3, 5), 4, 32), [generator(0, "a"), generator(0, "b"), generator(0, "a")])
    assert bank.users == 3 and bank.R.dtype == torch.float32
    assert orthogonality_error(bank.R) < 1e-6
    assert torch.equal(bank.W, bank.R) and bank.W.data_ptr() != bank.R.data_ptr()
    assert not bank.b.any()
    assert torch.equal(bank.R[0], bank.R[2]) and not torch.equal(bank.R[0], bank.R[1])


@pytest.mark.parametrize("wrong", ["R", "W", "b"])
def test_a_tensor_of_another_shape_is_refused_by_name(wrong):
    shape = EditShape((1, 2), 3, 8)
    tensors = {name: torch.zeros(2, *size) for name, size in shape.tensors().items()}
    EditBank(shape, **tensors)
    tensors[wrong] = tensors[wrong][:, :1]
    with pytest.raises(ValueError, match=rf"edit tensor {wrong} must have shape .* got"):
        EditBank(shape, **tensors)


def test_tensors_of_fewer_users_are_refused():
    shape = EditShape((1, 2), 3, 8)
    with pytest.raises(ValueError, match="edit tensor b"):
        EditBank(shape, torch.zeros(2, 2, 3, 8), torch.zeros(2, 2, 3, 8), torch.zeros(1, 2, 3))


def test_single_edits_stack_to_a_bank_and_come_back_as_copies(random_bank):
    three = random_bank(3)
    bank = EditBank.from_tensors(three.shape, [three.tensors(2), three.tensors(0)])
    assert bank.users == 2
    for name, tensor in bank.tensors(0).items():
        assert torch.equal(tensor, three.parameters()[name][2])
        tensor.zero_()
        assert torch.equal(bank.parameters()[name][0], three.parameters()[name][2])


def test_a_bank_moved_to_another_dtype_is_a_copy_even_where_nothing_changes(random_bank):
    bank = random_bank(2)
    same, narrow = bank.to(dtype=torch.float64), bank.to(dtype=torch.float32)
    same.W.zero_()
    assert bank.W.abs().max() > 0
    assert narrow.R.dtype == torch.float32 and torch.equal(narrow.R, bank.R.float())


def test_the_rows_of_a_batch_take_their_users_edits_layer_by_layer(random_bank):
    bank = random_bank(3)
    rows = bank.rows(torch.tensor([2, 0, 2, 1]))
    assert len(rows) == 2
    for place, layer in enumerate(rows):
        for tensor, stacked in zip(layer, (bank.R, bank.W, bank.b), strict=True):
            for row, user in enumerate([2, 0, 2, 1]):
                assert torch.equal(tensor[row], stacked[user, place])


def test_without_an_index_one_edit_is_shared_and_several_are_refused(random_bank):
    R, W, b = random_bank(1).rows(None)[1]
    assert torch.equal(R, random_bank(1).R[0, 1]) and W.shape == R.shape and b.shape == (2,)
    with pytest.raises(ValueError, match="a bank of 2 users needs one user index per row"):
        random_bank(2).rows(None)


def test_retraction_in_place_leaves_w_and_b_alone(random_bank):
    bank = random_bank(2)
    bank.R.add_(0.1 * noise(*bank.R.shape, seed=5))
    R, W, b = bank.R, bank.W.clone(), bank.b.clone()
    assert orthogonality_error(bank.R) > 0.01
    bank.retract_(torch.tensor([0, 1]))
    assert bank.R is R and orthogonality_error(bank.R) < 1e-14
    assert torch.equal(bank.W, W) and torch.equal(bank.b, b)


@pytest.mark.parametrize("tokens", [9, 43, 61])  # 43: float32 alone parts here
def test_padding_does_not_change_one_bit_of_the_gradients(tokens):
    """As a user's rows meet longer ones of others in a batch: zeros more in a sum must not round it another way."""
    draw = torch.Generator().manual_seed(tokens)
    h, slope = (torch.randn(2, tokens, 24, generator=draw) for _ in range(2))
    mask = torch.ones(2, tokens, dtype=torch.bool)
    edit = [torch.randn(s, generator=draw) for s in ((2, 8, 24), (2, 8, 24), (2, 8))]
    found = []
    for extra in (0, 1, 5, 23):
        leaves = [t.clone().requires_grad_() for t in edit]
        wide = [nn.functional.pad(t, (0, 0, 0, extra)) for t in (h, slope)]
        (loreft(wide[0], *leaves, nn.functional.pad(mask, (0, extra))) * wide[1]).sum().backward()
        found.append(leaves[2].grad)
    assert all(torch.equal(gradient, found[0]) for gradient in found)
