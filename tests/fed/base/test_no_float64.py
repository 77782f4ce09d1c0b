"""A device without float64, such as MPS: whatever needs it is computed on the host, and the numbers are the same."""

import pytest
import torch

from fed.answering.decoding.generate import Decoding, generate
from fed.answering.edited_rows import EditedRow
from fed.answering.scoring import losses
from fed.edits import loreft
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward.batching import Row
from fed.randomness import generator
from fed.training.plan import TrainSettings
from fed.training.train import train

ALL = Positions.parse("all-f1")
ROWS = [Row((5, 9, 11, 4), (7, 8, 0)), Row((6, 3), (12, 0)), Row((13, 14, 15, 2, 9), (16, 17, 18, 0))]
LABELS = [Row((5, 6, 7, 8), label) for label in ((7, 0), (9, 4, 0), (3,))]


@pytest.fixture
def without_float64(monkeypatch):
    """This machine's tensors as if they lay on such a device: `double` is an error unless they came to the host first.

    Yields a list of what was widened on the host.
    """
    real_cpu, real_double, widened = torch.Tensor.cpu, torch.Tensor.double, []

    def cpu(tensor):
        copy = real_cpu(tensor).clone()
        copy.on_host = True
        return copy

    def double(tensor):
        if not getattr(tensor, "on_host", False):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        widened.append(tensor.shape)
        return real_double(tensor)

    def use():
        monkeypatch.setattr(torch.Tensor, "cpu", cpu)
        monkeypatch.setattr(torch.Tensor, "double", double)
        monkeypatch.setattr(loreft, "has_float64", lambda _: False)

    return use, widened


def everything(base, random_bank):
    """Trained edits, losses of whole rows and of labels, answers."""
    bank = random_bank(2, seed=3, dtype=torch.float32)
    plan = TrainSettings(epochs=3, batch_size=2, rate=0.02)
    stack = EditStack(Layer(bank, ALL))
    results = train(base, stack, [ROWS, ROWS[:2]], [generator(0, u) for u in "ab"], plan)
    rows = [EditedRow(row, (user,)) for row in (*ROWS, *LABELS) for user in (0, 1)]
    return (
        [tensor.tolist() for tensor in bank.parameters().values()],
        [result.step_losses for result in results],
        losses(base, rows, stack),
        generate(base, rows, stack, Decoding(5)),
    )


def test_training_choice_and_answers_do_without_it_and_are_the_same_bit_for_bit(tiny32, random_bank, without_float64):
    use, widened = without_float64
    expected = everything(tiny32, random_bank)
    use()
    assert everything(tiny32, random_bank) == expected
    assert widened


def test_shared_edits_too(without_float64):
    """One edit that all rows share: its offset has one number a rank, its gradient comes from every row."""
    h = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    R, W, b = (
        torch.randn(s, generator=torch.Generator().manual_seed(1)).requires_grad_() for s in ((2, 8), (2, 8), (2,))
    )
    loreft.loreft(h, R, W, b).square().sum().backward()
    expected, b.grad = b.grad, None
    use, _ = without_float64
    use()
    loreft.loreft(h, R, W, b).square().sum().backward()
    assert torch.equal(b.grad, expected)
