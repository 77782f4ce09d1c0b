"""Training on SmolLM2-135M and synthetic users' rows: pyreft's curve within 3 %, and no bit that depends on company."""

from __future__ import annotations

import pytest
import torch

from fed.base import model as base_model
from fed.base.model import BaseModel
from fed.edits.loreft import EditBank, EditShape
from fed.edits.positions import Positions
from fed.edits.stack import EditStack, Layer
from fed.forward.batching import Row, pad, tokenize
from fed.lamp.records import open_corpus
from fed.lamp.tasks import get_task
from fed.randomness import generator
from fed.training import pyreft_engine
from fed.training import train as training
from fed.training.plan import TrainSettings

pytest.importorskip("pyreft")


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return base_model.load(device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def rows(base: BaseModel) -> list[Row]:
    """A synthetic user's paraphrase pairs, as stage 1 trains on them."""
    task = get_task("LaMP_7")
    corpus = open_corpus("synthetic", task, seed=0)
    queries = corpus.user(corpus.cohorts["others"][0]).queries[:12]
    return tokenize([task.query_pair(query) for query in queries], base.tokenizer, 128)


@pytest.mark.parametrize(
    ("rate", "batch_size", "epochs"), [(0.003, 2, 1), pytest.param(0.002, 4, 3, marks=pytest.mark.nightly)]
)
def test_pyreft_and_ours_on_the_real_base(
    base: BaseModel, rows: list[Row], rate: float, batch_size: int, epochs: int
) -> None:
    shape = EditShape((10, 16, 22), 8, base.skeleton.hidden_size)
    plan = TrainSettings(epochs=epochs, batch_size=batch_size, rate=rate)
    ours, theirs = (
        engine.train(
            base,
            EditStack(Layer(EditBank.identity(shape, [generator(0, "edit")]), Positions.parse("all"))),
            [rows],
            [generator(0, "order")],
            plan,
        )[0].step_losses
        for engine in (training, pyreft_engine)
    )
    assert len(ours) >= 6
    assert theirs[0] == pytest.approx(ours[0], rel=1e-5)
    assert theirs == pytest.approx(ours, rel=0.03)
    assert ours[-1] < 0.95 * ours[0]


@pytest.mark.nightly
def test_a_users_training_does_not_depend_on_whose_rows_share_its_batches(rows: list[Row]) -> None:
    """Bit for bit, in the machine's own dtype: alone, with others, under another token budget, on another thread count.

    Rows of several lengths, so that some are padded beside others and alone are not.
    """
    base = base_model.load()
    whole = base.model(pad(rows, base.pad_id, base.device).input_ids).logits
    for i in (0, 5):
        one = base.model(pad(rows[i : i + 1], base.pad_id, base.device).input_ids).logits[0]
        if not torch.equal(one, whole[i, : len(rows[i])]):
            pytest.skip("this machine's products round a row by the size of its batch")
    assert len({len(row) for row in rows}) > 3
    own = [rows[3 * u : 3 * u + 3] for u in range(4)]
    shape = EditShape((10, 16), 4, base.skeleton.hidden_size)

    def trained(users: list[int], token_budget: int, threads: int) -> EditBank:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            bank = EditBank.identity(shape, [generator(0, "edit", u) for u in users])
            plan = TrainSettings(epochs=2, batch_size=3, rate=0.003, token_budget=token_budget)
            draws = [generator(0, "order", u) for u in users]
            stack = EditStack(Layer(bank, Positions.parse("all")))
            training.train(base, stack, [own[u] for u in users], draws, plan)
            return bank
        finally:
            torch.set_num_threads(before)

    for together in (trained([0, 1, 2, 3], 1024, 2), trained([0, 1, 2, 3], 128, 2), trained([0, 1, 2, 3], 256, 1)):
        for u in (1, 2):
            alone = trained([u], 1024, 2).tensors(0)
            gaps = {name: float((tensor - together.tensors(u)[name]).abs().max()) for name, tensor in alone.items()}
            assert not any(gaps.values()), (u, gaps)
